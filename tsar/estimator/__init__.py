"""What the estimators of every family are: parameters, a fitted state, and their way to disk."""
