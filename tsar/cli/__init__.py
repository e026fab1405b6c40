"""The command ``tsar``."""
