"""What a fitted forecaster is, and its one route from series to numbers."""
