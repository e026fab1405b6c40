"""The command ``tsar``. It needs the extra ``cli``; everything behind it is plain Python API."""

import sys
import warnings
from typing import Any

from tsar.cli.advice import for_command_line
from tsar.exceptions import TsarError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str or None
        What follows ``tsar``; None takes the arguments of the process.

    Raises
    ------
    SystemExit
        Always: 0 when all went well, 1 when it did not, 2 when it could not begin.
    """
    try:
        from tsar.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(
            "tsar: the command line needs typer and rich: pip install 'tsar[cli]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    try:
        with warnings.catch_warnings():
            # A line of source code says nothing to who did not write it.
            warnings.showwarning = _show
            app(arguments, prog_name="tsar")
    except (TsarError, OSError) as error:
        print(f"Error: {for_command_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _show(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
