"""Data frames to tensors and back: panels, windows, scaling, calendars and data sets."""
