"""What the numbers of a forecast are: losses, distributions, heads, and what is asked of them."""
