"""The commands behind ``tsar``: each a few lines over the Python API."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

import tsar
from tsar import batch
from tsar.batch.preparing import Preparation
from tsar.cli.advice import repairs
from tsar.cli.demo import run_demo
from tsar.cli.file_recipes import DEFAULT_MODEL, as_params_table, load_file_recipe
from tsar.data.datasets import dataset_names, fetch_dataset, load_card
from tsar.data.frames import ID
from tsar.data.tables import (
    as_csv,
    check_writable,
    drop_row_numbers,
    find_time_column,
    parse_times,
    read_table,
    write_table,
)
from tsar.estimator.saving import check_folder
from tsar.evaluation import compare
from tsar.evaluation.recipes import Result, load_recipe, recipe_names, run_recipe
from tsar.exceptions import ParameterError
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.params.text import parse_parameters
from tsar.tuning import OptunaSearch
from tsar.tuning.spaces import parse_space

__all__ = ["app"]

app = typer.Typer(
    help="Forecast time series with the published models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# The exit code where some series have no forecast.
PARTIAL = 3


def _read_recipe(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let a recipe say what options do not; it is checked before they are read."""
    if path is not None:
        ctx.obj = load_file_recipe(path)
        ctx.default_map = ctx.obj.options(ctx.info_name)
    return path


# What forecast, backtest and tune have in common.
Data = Annotated[Path | None, typer.Argument(help="CSV or Parquet file, one row per time step.")]
Horizon = Annotated[int | None, typer.Option(help="Steps to forecast.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        is_eager=True,
        callback=_read_recipe,
        help="TOML file that says all of this; options go before what it says.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="Column to forecast; repeatable. Default: every other column, with --id y."
    ),
]
TimeColumn = Annotated[
    str | None, typer.Option("--time", help="Column of the time; found if left out.")
]
TimeFormat = Annotated[
    str | None,
    typer.Option(help="How times are written, such as %d/%m/%Y; found if left out."),
]
IdColumn = Annotated[
    str | None, typer.Option("--id", help="Column of the series id, if there are several.")
]
Levels = Annotated[
    list[float] | None,
    typer.Option(help="Interval that is to cover so many percent of values; repeatable."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the model; repeatable."),
]
Duplicates = Annotated[
    str,
    typer.Option(metavar="POLICY", help="Doubled rows: raise, sum, mean, first or last."),
]
Gaps = Annotated[
    str | None,
    typer.Option(metavar="POLICY", help="Missing rows: raise, mask (missing values) or zero."),
]
Ended = Annotated[
    str,
    typer.Option(metavar="POLICY", help="Series that ended: forecast, skip or extend by --gaps."),
]
EndedAfter = Annotated[
    int, typer.Option(min=1, help="Last steps a series must lack to have ended.")
]
Trailing = Annotated[
    str,
    typer.Option(
        metavar="POLICY",
        help="Rows at the end without a target: keep, or future, to be forecast.",
    ),
]
Events = Annotated[
    Path | None,
    typer.Option(help="File of events: date, and perhaps end, name and the id."),
]
Holidays = Annotated[
    str | None,
    typer.Option("--country-holidays", help="Country whose holidays are known, such as DE."),
]
OnError = Annotated[
    str, typer.Option(metavar="POLICY", help="Broken series: raise, or quarantine to leave out.")
]
# The options of these, by their names in Python as well.
READING = ("duplicates", "gaps", "ended", "ended_after", "trailing", "events", "country_holidays")


def _version(asked: bool) -> None:
    if asked:
        print(tsar.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the forecast and its plot.")] = Path(
        "tsar-demo"
    ),
) -> None:
    """Train PatchTST on a bundled data set and compare it with two baselines."""
    run_demo(out)


@app.command()
def forecast(
    ctx: typer.Context,
    data: Data = None,
    horizon: Horizon = None,
    recipe: RecipeFile = None,
    model: Annotated[
        str, typer.Option(help="A name, see `tsar models`, or the folder of a saved model.")
    ] = DEFAULT_MODEL,
    target: Targets = None,
    time: TimeColumn = None,
    time_format: TimeFormat = None,
    series_id: IdColumn = None,
    future: Annotated[
        Path | None,
        typer.Option(help="File with the future covariates of the steps to forecast."),
    ] = None,
    duplicates: Duplicates = "raise",
    gaps: Gaps = None,
    ended: Ended = "forecast",
    ended_after: EndedAfter = 1,
    trailing: Trailing = "keep",
    events: Events = None,
    country_holidays: Holidays = None,
    level: Levels = None,
    out: Annotated[Path | None, typer.Option(help="File to write; printed if left out.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="JSON file that says what became of each series.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run was stopped.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Forecast the I-th of N parts of the series."),
    ] = None,
    fit_rows: Annotated[
        int, typer.Option(help="Rows to fit on at most; of a longer file whole series, a sample.")
    ] = 1_000_000,
    settings: Settings = None,
) -> None:
    """Forecast what comes after the series of a file; exit with 3 where some have no forecast."""
    data, horizon = _given(ctx, data, horizon)
    saved = model not in forecaster_names() and Path(model).is_dir()
    if saved and settings:
        raise ParameterError(f"--set is for a model that is named, {model!r} is fitted already")
    with _progress("forecast") as on_progress:
        try:
            done = batch.forecast(
                data,
                model=model,
                horizon=horizon,
                out=out,
                future=future,
                level=level or None,
                id_column=series_id,
                time_column=time,
                time_format=time_format,
                target=target or None,
                **{name: ctx.params[name] for name in READING},
                params={} if saved else _params(ctx, model, settings),
                fit_rows=fit_rows,
                report=report,
                resume=resume,
                shard=None if shard is None else _parse_shard(shard),
                on_progress=on_progress,
            )
        except KeyboardInterrupt:
            kept = " but finished blocks, which --resume goes on with" if out else ""
            print(f"Interrupted: nothing was written{kept}", file=sys.stderr)
            raise typer.Exit(130) from None
    if done.forecast is not None:
        print(as_csv(done.forecast), end="")
    _note(done.notes)
    if done.n_other_times:
        print(
            f"Note: the forecasts of {done.n_other_times} of {done.n_series} series begin at "
            f"another time than most, because these end earlier or later; --ended skip leaves "
            f"out those that ended",
            file=sys.stderr,
        )
    if done.n_failed:
        first = done.series[done.series["status"] != "ended"].iloc[0]
        print(
            f"Warning: {done.n_failed} of {done.n_series} series have no forecast, see the column "
            f"status{' and the report' if report else ''}; the first is {first['id']!r}: "
            f"{first['reason']}",
            *repairs(done.series["status"]),
            sep="\n",
            file=sys.stderr,
        )
        raise typer.Exit(PARTIAL)


def _note(notes: Any) -> None:
    """Say what was done to the rows of a file."""
    for (kind, handling), rows in notes.groupby(["kind", "handling"], sort=False):
        series, count = f"{len(rows)} series", rows["count"].sum()
        words = {
            "duplicate": f"{count} doubled rows of {series} (--duplicates {handling})",
            "gap": f"{count} missing rows of {series} (--gaps {handling})",
            "ended": f"{series} ended before the others (--ended {handling})",
            "trailing": f"{count} rows of {series} to forecast (--trailing future)",
        }
        print(f"Note: {words[kind]}", file=sys.stderr)


def _parse_shard(text: str) -> tuple[int, int]:
    number, _, n_shards = text.partition("/")
    if not (number.strip().isdecimal() and n_shards.strip().isdecimal()):
        raise ParameterError(f"--shard must be such as 2/4, the second part of four, got {text!r}")
    return int(number), int(n_shards)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many series are done, on the error output and on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        # Even a bar that is disabled ends with an empty line in older versions of rich.
        yield lambda done, n_series: None
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("series"), TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, n_series: bar.update(task, completed=done, total=n_series)


def _given(ctx: typer.Context, data: Path | None, horizon: int | None) -> tuple[Path, int]:
    """Return what has to be given, be it as an option or in a recipe."""
    if data is None:
        ctx.fail("no file: name it as the argument, or as data = ... in the file of --recipe")
    if horizon is None:
        ctx.fail("no horizon: give --horizon, or horizon = ... in the file of --recipe")
    return data, horizon


def _params(ctx: typer.Context, model: str, settings: list[str] | None) -> dict[str, Any]:
    """Return the parameters of a named model: those of the recipe, with settings in their place."""
    if model not in forecaster_names() and Path(model).is_dir():
        raise ParameterError(
            f"--model must be a name of `tsar models` here, {model!r} is the folder of a saved "
            f"model; only tsar forecast takes one"
        )
    known = ctx.obj.params(model) if ctx.obj else {}
    return {**known, **parse_parameters(forecaster_class(model), settings or [])}


def _read_data(
    data: Path,
    horizon: int,
    target: list[str] | None,
    time: str | None,
    time_format: str | None,
    series_id: str | None,
) -> tuple[Any, dict[str, Any]]:
    """Return the rows of a file, and the parameters by which estimators read them."""
    frame = read_table(data, series_id or ID)
    time = time or find_time_column(frame)
    if time_format is not None:
        frame = parse_times(frame, time, time_format)
    frame = drop_row_numbers(frame, [time, series_id, *(target or [])])
    read = {"horizon": horizon, "time_column": time, "id_column": series_id}
    return frame, {**read, "target": target or None}


def _prepared(ctx: typer.Context, frame: Any, models: list[Any], horizon: int) -> Any:
    """Return the rows of a file made fit to be read, by the options of reading."""
    asked = {name: ctx.params[name] for name in (*READING, "on_error") if name in ctx.params}
    if asked["events"] is not None:
        asked["events"] = read_table(asked["events"], models[0].id_column or ID)
    preparation = Preparation.of("tsar", **asked)
    if not preparation.changes_rows and asked["on_error"] == "raise":
        return frame
    readers = [one for one in models if "future_covariates" in one.get_params(deep=False)]
    for one in readers or models:
        preparation.let_read(one)
    done = preparation.prepared(frame, models[0], horizon)
    _note(done.notes)
    for name, (kind, reason) in done.bad.items():
        print(f"Note: {name!r} is left out, {kind}: {reason}", file=sys.stderr)
    return done.frame


@app.command()
def backtest(
    ctx: typer.Context,
    data: Data = None,
    horizon: Horizon = None,
    recipe: RecipeFile = None,
    model: Annotated[list[str] | None, typer.Option(help="See `tsar models`; repeatable.")] = None,
    windows: Annotated[int, typer.Option(help="Cutoffs, one horizon apart.")] = 10,
    level: Levels = None,
    target: Targets = None,
    time: TimeColumn = None,
    time_format: TimeFormat = None,
    series_id: IdColumn = None,
    duplicates: Duplicates = "raise",
    gaps: Gaps = None,
    ended: Ended = "forecast",
    ended_after: EndedAfter = 1,
    events: Events = None,
    country_holidays: Holidays = None,
    on_error: OnError = "raise",
    out: Annotated[Path | None, typer.Option(help="File for the forecasts and the truth.")] = None,
    settings: Settings = None,
) -> None:
    """Compare models by what they forecast of the end of a file, with SeasonalNaive among them."""
    data, horizon = _given(ctx, data, horizon)
    names = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    params = {name: _params(ctx, name, settings) for name in names}
    if out is not None:
        check_writable(out, inputs=[data])
    frame, read = _read_data(data, horizon, target, time, time_format, series_id)
    models = {name: forecaster_class(name)(**read).set_params(**params[name]) for name in names}
    frame = _prepared(ctx, frame, list(models.values()), horizon)
    metrics = ["mase", "mae", "rmse", *(["coverage", "interval_width"] if level else [])]
    board = compare(
        models,
        frame,
        metrics=metrics,
        windows=windows,
        level=level or None,
        verbose=int(sys.stderr.isatty()),
    )
    print(board)
    if out is not None:
        tested = board.backtest
        if time_format is not None:
            styled = {name: tested[name].dt.strftime(time_format) for name in ("cutoff", "time")}
            tested = tested.assign(**styled)
        write_table(tested, out)


@app.command()
def tune(
    ctx: typer.Context,
    data: Data = None,
    horizon: Horizon = None,
    recipe: RecipeFile = None,
    model: Annotated[str, typer.Option(help="See `tsar models`.")] = DEFAULT_MODEL,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="What to choose from: n_layers=1,2,3, dropout=0..0.5 or "
            "learning_rate=1e-4..1e-2:log; repeatable. A default space if left out.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials in all.")] = 20,
    timeout: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    windows: Annotated[
        int | None, typer.Option(help="Cutoffs to judge by; the validation tail if left out.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="SQLite file or URL of a database, to share and to resume.")
    ] = None,
    target: Targets = None,
    time: TimeColumn = None,
    time_format: TimeFormat = None,
    series_id: IdColumn = None,
    duplicates: Duplicates = "raise",
    gaps: Gaps = None,
    ended: Ended = "forecast",
    ended_after: EndedAfter = 1,
    events: Events = None,
    country_holidays: Holidays = None,
    on_error: OnError = "raise",
    out: Annotated[Path | None, typer.Option(help="File for the table of trials.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the best model, fitted on everything.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Search for the parameters of a model, and print the best."""
    data, horizon = _given(ctx, data, horizon)
    params = _params(ctx, model, settings)
    cls = forecaster_class(model)
    wanted = {**(ctx.obj.space(model) if ctx.obj else {}), **parse_space(cls, space or [])}
    if out is not None:
        check_writable(out, inputs=[data])
    if save is not None:
        check_folder(save)
    frame, read = _read_data(data, horizon, target, time, time_format, series_id)
    estimator = cls(**read).set_params(**params)
    frame = _prepared(ctx, frame, [estimator], horizon)
    search = OptunaSearch(
        estimator,
        wanted or None,
        n_trials=trials,
        timeout=timeout,
        windows=windows,
        storage=storage,
        random_state=params.get("random_state"),
        verbose=int(sys.stderr.isatty()),
    )
    search.fit(frame)
    if out is not None:
        write_table(search.trials_, out)
    if save is not None:
        search.best_estimator_.save(save)
    best = dict(search.best_params_)
    if search.best_seed_ is not None:
        best["random_state"] = search.best_seed_
    done = f"score {search.best_score_:.6g} in {len(search.trials_)} trials"
    if recipe is None:
        print("\n".join([done, *(f"--set {_setting(name, best[name])}" for name in best)]))
        return
    # As a whole it is TOML again, to stand in the place of the recipe's table.
    print(f"# {done}\n{as_params_table({**params, **best})}")
    if save is not None:
        again = ["tsar", "forecast", "--recipe", str(recipe), "--model", str(save)]
        print(f"# the fitted model: {shlex.join(again)}")


def _setting(name: str, value: Any) -> str:
    """Write a parameter as ``--set`` reads it, in a shell."""
    listed = isinstance(value, list | tuple)
    return shlex.quote(f"{name}={','.join(map(str, value)) if listed else value}")


@app.command()
def reproduce(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or the path of a TOML file.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    settings: Settings = None,
) -> None:
    """Reproduce published numbers; exit with 1 where one is outside its band."""
    console = Console()
    if list_all or recipe is None:
        console.print(_table(["recipe", "what"], _titles()))
        return
    chosen = load_recipe(recipe)
    overrides = parse_parameters(forecaster_class(chosen.model), settings or [])
    console.print(f"{chosen.title}: {chosen.model}, tsar {tsar.__version__}", highlight=False)
    if overrides:
        console.print(f"instead of the recipe's: {overrides}", highlight=False)
    results: list[Result] = []
    for pair in run_recipe(chosen, overrides):
        results.extend(pair)
        for result in pair:
            console.print(_line(result), highlight=False, soft_wrap=True)
    missed = [result for result in results if not result.within]
    console.print(f"{len(results) - len(missed)} of {len(results)} within their band")
    raise typer.Exit(1 if missed else 0)


def _titles() -> list[list[str]]:
    return [[name, load_recipe(name).title] for name in recipe_names()]


def _line(result: Result) -> str:
    cell = result.cell.published
    reference = cell.model if result.cell.baseline else "published"
    windows = f"{result.n_windows} windows{', last batch dropped' if cell.drop_last else ''}"
    return (
        f"{result.cell.dataset}-{cell.horizon} {result.metric}: "
        f"{reference} {result.published:.4f}  "
        f"obtained {result.obtained:.4f}  difference {result.difference:+.4f}  "
        f"band {result.bound}  {'ok' if result.within else 'OUTSIDE'}  "
        f"({windows}, {result.seconds:.1f} s)"
    )


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show the parameters of one model.")] = None,
) -> None:
    """List the models, or the parameters of one."""
    console = Console()
    if name is not None:
        cls = forecaster_class(name)
        rows = [[key, repr(value)] for key, value in cls().get_params(deep=False).items()]
        console.print(_table(["parameter", "default"], rows))
        return
    console.print(
        _table(["model", "what"], [[name, _summary(name)] for name in forecaster_names()])
    )


def _summary(model: str) -> str:
    return (forecaster_class(model).__doc__ or "").strip().partition("\n")[0]


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="Show the card of one data set.")] = None,
) -> None:
    """List the data sets, or show the card of one."""
    console = Console()
    if name is not None:
        card = load_card(name)
        facts = {field.name: getattr(card, field.name) for field in fields(card)}
        facts["columns"] = ", ".join(card.columns)
        facts["published"] = f"{len(card.published)} results"
        facts["file"] = "bundled" if card.file is None else f"{card.file.path} from {card.file.url}"
        console.print(_table(["field", "value"], [[key, str(facts[key])] for key in facts]))
        return
    cards = [load_card(name) for name in dataset_names()]
    rows = [
        [card.name, str(card.rows), str(len(card.columns)), card.frequency, card.title]
        for card in cards
    ]
    console.print(_table(["name", "rows", "variates", "step", "what"], rows))


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="Names from `tsar datasets`.")]) -> None:
    """Fetch data sets into the cache and verify them."""
    for name in names:
        path = fetch_dataset(name)
        print(f"{name}: {'bundled, nothing to fetch' if path is None else path}")


def _table(heads: list[str], rows: list[list[Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        # The first column is a name to type again: it is never cut.
        table.add_column(head, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
