"""``python -m tsar`` is the command ``tsar``."""

from tsar.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
