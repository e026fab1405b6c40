"""The commands of a nightly run: what a saved model is, and whether it still holds."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tsar
from tsar.cli.listing import as_table
from tsar.cli.once import Command
from tsar.cli.options import Plugins

__all__ = ["add_to"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(cls=Command)(describe)


def describe(
    model: Annotated[Path, typer.Argument(help="The folder of a saved model.")],
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show on what data a saved model was fitted, when, how, and with what result."""
    held = tsar.load(model).describe()
    if as_json:
        print(json.dumps(held, indent=1))
        return
    print(held["model"])
    console = Console()
    for title, rows in _sections(held):
        print(f"\n{title}")
        console.print(as_table(["what", "value"], rows), highlight=False, soft_wrap=True)


def _sections(held: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return the tables of a description: a title, and rows of a name and a text."""
    if held["manifest"] is None:
        manifest = [["missing", held["missing"]]]
    else:
        told = {name: value for name, value in held["manifest"].items() if name != "reference"}
        versions = told.pop("versions")
        told["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
        manifest = [[name, str(value)] for name, value in told.items() if value is not None]
    sections = [("Run manifest", manifest)]
    for name, one in {"": held, **held["members"]}.items():
        of_member = f" of {name} ({one['model']})" if name else ""
        results = {"seed": one["seed"], **one["metrics"]}
        if "weights" in one:
            results["weights"] = ", ".join(f"{weight:.3g}" for weight in one["weights"])
        rows = [[key, str(value)] for key, value in results.items() if value is not None]
        if rows:
            sections.append((f"Results{of_member}", rows))
        sections.append(
            (f"Parameters{of_member}", [list(row) for row in one["parameters"].items()])
        )
    return sections
