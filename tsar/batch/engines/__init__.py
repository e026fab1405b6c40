"""What shares blocks of series among processes or machines: libraries that are made for it."""
