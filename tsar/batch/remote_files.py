"""Runs whose files lie at addresses such as ``s3://bucket/name``."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from tsar.batch.parts import write_json
from tsar.exceptions import ParameterError
from tsar.remote import Storage, address_in

__all__ = ["with_remote_files"]

READ, WRITTEN = ("source", "future", "events"), ("out", "report")

Run = TypeVar("Run", bound=Callable[..., Any])


def with_remote_files(run: Run) -> Run:
    """Let a function of a run take addresses for the files that it reads and writes.

    They are copied to this machine before it starts, and from it when it has succeeded.
    """

    @functools.wraps(run)
    def called(source: Any, **options: Any) -> Any:
        options["source"] = source
        addresses = {name: address_in(options.get(name)) for name in (*READ, *WRITTEN)}
        remote = {name: at for name, at in addresses.items() if at is not None}
        if not remote:
            return run(options.pop("source"), **options)
        if options.get("resume"):
            raise ParameterError(
                f"batch: resume goes on with finished blocks that lie beside out, and knows the "
                f"files by their dates, which needs paths on this machine, got "
                f"{next(iter(remote.values()))!r}; copy the files here, or begin anew"
            )
        storages = {name: Storage("batch", at) for name, at in remote.items()}
        with contextlib.ExitStack() as stack:
            copies: dict[str, Path] = {}
            for name, storage in storages.items():
                opened = storage.fetched() if name in READ else storage.written()
                options[name] = copies[name] = stack.enter_context(opened)
            report = run(options.pop("source"), **options)
            for name, storage in storages.items():
                report.reading = storage.in_place_of(str(copies[name].parent), report.reading)
            if options.get("report") is not None:
                write_json(report.to_json(), Path(options["report"]))
        return report

    return cast(Run, called)
