"""The commands ``tsar bench``."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from tsar.cli.once import Command
from tsar.cli.options import Settings
from tsar.core.mixers import MIXERS, causal_mixers
from tsar.data.datasets import load_dataset
from tsar.data.tables import check_writable, write_table
from tsar.evaluation.mixers import (
    copying,
    cost_exponents,
    forecast_errors,
    mixer_costs,
    text_losses,
)
from tsar.evaluation.untuned import relative_errors
from tsar.evaluation.untuned import untuned as measure_untuned
from tsar.exceptions import DataError, ParameterError
from tsar.forecasting.registry import forecaster_class
from tsar.params.constraints import check_choice
from tsar.params.text import parse_parameters

__all__ = ["app"]

app = typer.Typer(help="Measure the parts that models are made of.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command(cls=Command)
def mixers(
    mixer: Annotated[
        list[str] | None, typer.Option(help="A mixer; repeatable. All of them by default.")
    ] = None,
    length: Annotated[list[int] | None, typer.Option(help="Tokens; repeatable.")] = None,
    copy_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the training on copying; 0 leaves it out.")
    ] = 400,
    text_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the training on a text; 0 leaves it out.")
    ] = 400,
    forecast_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of PatchTST on ETTh1; 0 leaves it out.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Write the times here, and what is learned beside it.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw times and states over the length into this file.")
    ] = None,
) -> None:
    """Put mixers side by side: formula, time and memory over the length, and what they learn.

    The causal ones learn to copy twelve letters and the help texts of Python; all of them forecast
    ETTh1. The models of a task have as many weights, as far as their mixers let them.
    """
    names = mixer or list(MIXERS)
    for name in names:
        check_choice("tsar bench mixers", "--mixer", name, MIXERS)
    learned_out = None if out is None else out.with_name(f"{out.stem}_learned{out.suffix}")
    if figure is not None:
        _check_figure(figure)
    for path in (out, learned_out):
        if path is not None:
            check_writable(path)
    if forecast_epochs:
        _check_data()
    lengths = length or (128, 512, 2048, 8192)
    costs = mixer_costs(names, lengths, verbose=1)
    print(_formulas(names).to_string())
    table = _wide(costs)
    if len(lengths) > 1:
        table["exponent"] = cost_exponents(costs).map("{:.2f}".format)
    print(f"\nMilliseconds, and numbers remembered:\n{table.to_string()}")
    if out is not None:
        write_table(costs, out)
        print(f"Wrote {out}")
    if figure is not None:
        _draw(costs, figure)
        print(f"Wrote {figure}")
    learned = _learned(names, copy_steps, text_steps, forecast_epochs)
    if learned is None:
        return
    print(
        f"\nCopying of twelve letters after {copy_steps} steps (2.08 nats: nothing learned), a "
        f"text after {text_steps}, forecasts after {forecast_epochs} epochs:"
    )
    print(learned.to_string(float_format="{:.3f}".format, na_rep=""))
    if learned_out is not None:
        write_table(learned.reset_index(), learned_out)
        print(f"Wrote {learned_out}")


@app.command(cls=Command)
def untuned(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A forecaster; repeatable. PatchTST, NLinear and SeasonalNaive."),
    ] = None,
    panel: Annotated[
        list[str] | None,
        typer.Option(help="A data set; repeatable. All whose files are there by default."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model that draws.")] = 1,
    windows: Annotated[
        int | None, typer.Option(min=1, help="Origins of each series; 3, and 10 of a single one.")
    ] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Write the errors of each fit here.")] = None,
) -> None:
    """Forecast data of many kinds by models as they come: nothing is set but the horizon.

    What --set names, a parameter of the first model, is set in all that have it.

    Prints MASE and the quantile loss of each fit, and both by those of the seasonal naive.
    """
    if out is not None:
        check_writable(out)
    names = list(dict.fromkeys([*(model or ("PatchTST", "NLinear")), "SeasonalNaive"]))
    params = parse_parameters(forecaster_class(names[0]), settings or [])
    table = measure_untuned(
        names, panel or None, seeds=range(seeds), windows=windows, params=params, verbose=1
    )
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print("\nErrors by those of SeasonalNaive, means over panels and of MASE on each:")
    print(relative_errors(table).to_string(float_format="{:.3f}".format))
    if out is not None:
        write_table(table, out)
        print(f"Wrote {out}")


def _check_data() -> None:
    """Raise an error that names the way around it if there is no ETTh1 to forecast."""
    try:
        load_dataset("ETTh1")
    except DataError as error:
        raise DataError(f"{error}; or leave the forecasts out: --forecast-epochs 0") from None


def _learned(
    names: list[str], copy_steps: int, text_steps: int, forecast_epochs: int
) -> pd.DataFrame | None:
    """Train small models of mixers on what is asked for, a row for each that was."""
    causal = [name for name in names if name in causal_mixers()]
    tasks = {}
    if causal and copy_steps:
        tasks["copy"] = copying(causal, max_steps=copy_steps, verbose=1)
    if causal and text_steps:
        tasks["text"] = text_losses(causal, max_steps=text_steps, verbose=1)
    if forecast_epochs:
        tasks["etth1"] = forecast_errors(names, max_epochs=forecast_epochs, verbose=1)
    if not tasks:
        return None
    parts = [table.set_index("mixer").add_prefix(f"{task}_") for task, table in tasks.items()]
    learned = pd.concat(parts, axis=1)
    return learned.loc[[name for name in names if name in learned.index]].rename_axis("mixer")


def _check_figure(path: Path) -> None:
    """Raise an error before any work if a figure could not be written."""
    from tsar.plot.axes import grid_or_new

    grid_or_new("tsar bench mixers", None, (1, 1))
    if path.suffix.lower() not in (".png", ".svg", ".pdf") or not path.parent.is_dir():
        raise ParameterError(
            f"tsar bench mixers: --figure must be a .png, .svg or .pdf in a folder that exists, "
            f"got {str(path)!r}"
        )


def _draw(costs: pd.DataFrame, path: Path) -> None:
    """Draw the time of a pass, that of one more token, and what is remembered, side by side."""
    from tsar.plot import mixer_costs as draw_costs
    from tsar.plot.axes import grid_or_new

    axes = grid_or_new("tsar bench mixers", None, (1, 3), size=(15, 5.5)).ravel()
    for ax, value in zip(axes, ("pass_ms", "step_ms", "state"), strict=True):
        if costs[value].notna().any():
            draw_costs(costs, value, ax=ax)  # type: ignore[arg-type]
    axes[0].figure.savefig(path, dpi=110)


def _formulas(names: list[str]) -> pd.DataFrame:
    rows = {name: {"cost": MIXERS[name].cost, "formula": MIXERS[name].formula} for name in names}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mixer")


def _wide(costs: pd.DataFrame) -> pd.DataFrame:
    """Put lengths side by side."""
    measures = ["pass_ms", "step_ms", "state"]
    table = costs.pivot(index="mixer", columns="length", values=measures)
    table = table.reindex(costs["mixer"].unique())
    shown = pd.DataFrame(index=table.index)
    shown["causal"] = costs.groupby("mixer")["causal"].first()
    for measure in measures:
        digits = 0 if measure == "state" else 2
        for length in costs["length"].unique():
            shown[f"{measure}@{length}"] = [
                "" if pd.isna(value) else f"{value:,.{digits}f}" for value in table[measure, length]
            ]
    return shown
