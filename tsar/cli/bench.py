"""The commands ``tsar bench``."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from tsar.core.mixers import MIXERS, causal_mixers
from tsar.data.tables import check_writable, write_table
from tsar.evaluation.mixers import copying, mixer_costs
from tsar.params.constraints import check_choice

__all__ = ["app"]

app = typer.Typer(help="Measure the parts that models are made of.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
def mixers(
    mixer: Annotated[
        list[str] | None, typer.Option(help="A mixer; repeatable. All of them by default.")
    ] = None,
    length: Annotated[list[int] | None, typer.Option(help="Tokens; repeatable.")] = None,
    copy_steps: Annotated[
        int, typer.Option(help="Steps of the training on copying; 0 leaves it out.")
    ] = 400,
    out: Annotated[Path | None, typer.Option(help="Write the table here, too.")] = None,
) -> None:
    """Time every mixer over the length of a sequence, and let the causal ones learn to copy."""
    names = mixer or list(MIXERS)
    for name in names:
        check_choice("tsar bench mixers", "--mixer", name, MIXERS)
    if out is not None:
        check_writable(out)
    costs = mixer_costs(names, length or (128, 512, 2048, 8192), verbose=1)
    print(_wide(costs).to_string())
    if out is not None:
        write_table(costs, out)
        print(f"Wrote {out}")
    causal = [name for name in names if name in causal_mixers()]
    if causal and copy_steps:
        print(f"\nCopying twelve letters, after {copy_steps} steps (2.08 nats: nothing learned):")
        copied = copying(causal, max_steps=copy_steps, verbose=1).set_index("mixer")
        print(copied.sort_values("nats").to_string(float_format="{:.3f}".format))


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
