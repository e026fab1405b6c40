"""The commands of a nightly run: what a saved model is, and whether it still holds."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tsar
from tsar.batch.preparing import Preparation
from tsar.cli.listing import as_table
from tsar.cli.logs import LoggedCommand
from tsar.cli.once import Command
from tsar.cli.options import Levels, Plugins
from tsar.cli.reading import read_data
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.tables import TableFile
from tsar.estimator.description import NO_MANIFEST
from tsar.exceptions import ParameterError

__all__ = ["add_to"]

# The exit code where something drifted.
DRIFT = 4

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command(cls=Command)(describe)
    app.command(cls=LoggedCommand)(monitor)


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


def monitor(
    source: Annotated[
        Path,
        typer.Argument(
            help="A file of forecasts and their truth, as `tsar backtest --out` writes it, or the "
            "folder of a saved model."
        ),
    ],
    data: Annotated[
        Path | None, typer.Argument(help="File of the rows after the fit, for a saved model.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Column of the forecasts, if the file has several.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Saved model whose training the truth of a file is compared with."),
    ] = None,
    level: Levels = None,
    alarm_rate: Annotated[float, typer.Option(help="Of false alarms, see the docs.")] = 0.01,
    tolerance: Annotated[
        float, typer.Option(help="By how much coverage may differ in the long run.")
    ] = 0.05,
    reference: Annotated[
        int, typer.Option(help="First runs, which say how large errors are.")
    ] = 10,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Watch forecasts for drifts of coverage, errors and inputs; exit with 4 where there is one."""
    from tsar.monitoring import watch, watch_model

    limits: dict[str, Any] = {
        "alarm_rate": alarm_rate,
        "tolerance": tolerance,
        "reference": reference,
    }
    if source.is_dir():
        if data is None or against is not None or name is not None:
            raise ParameterError(
                "tsar monitor: a saved model needs the file of the rows after its fit, and neither "
                "--name nor --against: tsar monitor MODEL DATA"
            )
        model = tsar.load(source)
        report = watch_model(model, _rows_for(model, data), level=level or None, **limits)
    else:
        if data is not None or level:
            raise ParameterError(
                f"tsar monitor: {str(source)!r} is a file of forecasts, which has its truth and "
                f"levels in it; leave out the second file and --level, or name a saved model"
            )
        manifest = None if against is None else _manifest_of(against)
        forecasts, _ = TableFile.look_at(source, Roles(None, None, {}), FileFormat()).read()
        report = watch(forecasts, name, manifest=manifest, **limits)
    if as_json:
        print(json.dumps(json.loads(report.table.to_json(orient="records")), indent=1))
    else:
        print(report.table.to_string(index=False))
    if report.drifted:
        raise typer.Exit(DRIFT)


def _manifest_of(folder: Path) -> Any:
    manifest = getattr(tsar.load(folder), "manifest_", None)
    if manifest is None:
        raise ParameterError(
            f"tsar monitor: the model in {str(folder)!r} has no run manifest, {NO_MANIFEST}"
        )
    return manifest


def _rows_for(model: Any, data: Path) -> Any:
    """Return the rows of a file in the columns that a model reads."""
    names = model.reading
    roles = Roles(
        _listed(names.get("id_column")),
        _listed(names.get("time_column")),
        {"target": _listed(names.get("target")) or []},
    )
    frame, _, _ = read_data(
        data, roles, FileFormat(), [model.fitted_parameters_], Preparation.of("tsar"), False
    )
    return frame


def _listed(names: Any) -> list[Any] | None:
    if names is None:
        return None
    return list(names) if isinstance(names, list | tuple) else [names]
