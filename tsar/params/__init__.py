"""Parameters and arguments: their constraints, their checks, and their reading from text."""
