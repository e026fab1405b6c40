"""What turns the last features of a token into a distribution to learn and to draw from."""

from tsar.core.heads.categorical import CategoricalHead

__all__ = ["CategoricalHead"]
