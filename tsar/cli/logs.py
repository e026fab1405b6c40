"""Commands that say what they do as JSON, a line each, for those who read logs by machine."""

import contextlib
import datetime
import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, TextIO

import typer

from tsar.cli.advice import for_command_line
from tsar.cli.once import Command
from tsar.exceptions import TsarError
from tsar.params.constraints import check_choice
from tsar.training import on_epoch

__all__ = ["LoggedCommand"]

FORMS = ("text", "json")
LOGGER = logging.getLogger("tsar")
# How a line of the error output begins that is no mere note.
LEVELS = {"Warning: ": logging.WARNING, "Error: ": logging.ERROR}


class LoggedCommand(Command):
    """A command with the option ``--log json``: its error output is then one JSON object a line.

    Each has ``time`` (UTC), ``level``, ``event`` and fields of the event: ``begin``, ``epoch``,
    ``message`` and ``end``, with the exit code and the seconds.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(_option())

    def invoke(self, ctx: Any) -> Any:
        """Run the command, see :meth:`click.Command.invoke`."""
        if ctx.meta.get(__name__) != "json":
            return super().invoke(ctx)
        with _logged_to(sys.stderr):
            return self._invoke_logged(ctx)

    def _invoke_logged(self, ctx: Any) -> Any:
        began, code = time.perf_counter(), 0
        values = {name: value for name, value in ctx.params.items() if value not in (None, [], ())}
        _log(logging.INFO, "begin", command=ctx.command_path, options=values)
        try:
            with on_epoch(lambda record: _log(logging.INFO, "epoch", **record)):
                return super().invoke(ctx)
        except typer.Exit as stop:
            code = stop.exit_code
            raise
        except (TsarError, OSError) as error:
            code = 1
            _log(logging.ERROR, "message", text=for_command_line(error), kind=type(error).__name__)
            raise typer.Exit(code) from None
        except BaseException:
            code = 130 if sys.exc_info()[0] is KeyboardInterrupt else 1
            raise
        finally:
            seconds = round(time.perf_counter() - began, 3)
            _log(
                logging.INFO if code == 0 else logging.WARNING,
                "end",
                exit_code=code,
                seconds=seconds,
            )


def _remember_form(ctx: typer.Context, value: str) -> str:
    check_choice(ctx.command_path, "--log", value, FORMS)
    ctx.meta[__name__] = value
    return value


def _option() -> Any:
    """Return the option, as typer makes it of a function: its class differs between versions."""

    def with_option(
        log: Annotated[
            str,
            typer.Option(
                "--log",
                metavar="FORM",
                callback=_remember_form,
                help="How the error output is written: text, or json, an object a line.",
            ),
        ] = "text",
    ) -> None:
        pass

    app = typer.Typer(add_completion=False)
    app.command()(with_option)
    option = typer.main.get_command(app).params[0]
    # What a command does is the same.
    option.expose_value = False
    return option


def _log(level: int, event: str, **fields: Any) -> None:
    LOGGER.log(level, event, extra={"tsar_fields": fields})


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON; those of others are messages."""
        fields = getattr(record, "tsar_fields", None)
        text = record.getMessage()
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        held = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **({"event": "message", "text": text} if fields is None else {"event": text, **fields}),
        }
        return json.dumps(held, default=str)


class _LinesLogged(io.TextIOBase):
    """A stream whose lines are log records."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        """Log the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log_line(line)
        return len(text)

    def finish(self) -> None:
        """Log what is left."""
        self._log_line(self._rest)
        self._rest = ""

    def _log_line(self, line: str) -> None:
        begin = next((begin for begin in LEVELS if line.startswith(begin)), "")
        if line.strip():
            level = LEVELS.get(begin, logging.INFO)
            _log(level, "message", text=line.removeprefix(begin).strip())


@contextlib.contextmanager
def _logged_to(stream: TextIO) -> Iterator[None]:
    """Let the logger of tsar, and what is written to the error output, become JSON on a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonLines())
    level, propagate = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    lines = _LinesLogged()
    try:
        with contextlib.redirect_stderr(lines):
            yield
        lines.finish()
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
