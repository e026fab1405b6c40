"""``python -m tsar`` is the command ``tsar``."""

from tsar.cli import main

main()
