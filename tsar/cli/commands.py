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
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import tsar
from tsar import batch
from tsar.checks import check_id, checks_for
from tsar.cli import bench, image, language, operations
from tsar.cli.advice import parameters_of_unnamed, repairs
from tsar.cli.demo import run_demo
from tsar.cli.file_recipes import DEFAULT_MODEL, as_params_table
from tsar.cli.image import run_image_demo
from tsar.cli.language import run_language_demo
from tsar.cli.listing import abilities, as_table, summary
from tsar.cli.logs import LoggedCommand
from tsar.cli.once import Command
from tsar.cli.options import (
    READING,
    BlockRows,
    Data,
    Decimal,
    Duplicates,
    Encoding,
    Ended,
    EndedAfter,
    Engine,
    Events,
    Gaps,
    Header,
    Holidays,
    Horizon,
    IdColumn,
    Latex,
    Levels,
    OnError,
    Plugins,
    RecipeFile,
    Separator,
    Settings,
    Shard,
    Targets,
    Thousands,
    TimeColumn,
    TimeFormat,
    Trailing,
    Verbose,
    parse_shard,
)
from tsar.cli.reading import fit_to_read, note, preparation_options, read_data, tell_reading
from tsar.data.datasets import dataset_names, fetch_dataset, load_card
from tsar.data.fileformat import FileFormat, Roles
from tsar.data.forecasts import plain_label
from tsar.data.tables import as_csv, check_writable, write_table
from tsar.estimator.saving import check_folder
from tsar.evaluation import compare, results_to_latex
from tsar.evaluation.recipes import Result, load_recipe, recipe_names, run_recipe
from tsar.exceptions import ParameterError
from tsar.forecasting.capabilities import CAPABILITIES
from tsar.forecasting.registry import forecaster_class, forecaster_names
from tsar.params.constraints import check_choice
from tsar.params.text import parse_parameters
from tsar.progress import in_place_of_bars
from tsar.remote import address_in
from tsar.training import on_epoch
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
app.add_typer(language.app, name="language")
app.add_typer(image.app, name="image")
app.add_typer(bench.app, name="bench")
operations.add_to(app)

DEMOS: dict[str, Callable[[Path], Any]] = {
    "forecasting": run_demo,
    "language": run_language_demo,
    "image": run_image_demo,
}
# The exit code where some series have no forecast.
PARTIAL = 3


def _version(wanted: bool) -> None:
    if wanted:
        print(tsar.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command(cls=Command)
def demo(
    what: Annotated[str, typer.Argument(help="forecasting, language or image")] = "forecasting",
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("tsar-demo"),
) -> None:
    """Train a small model on bundled data: PatchTST, a language model, or one of images."""
    check_choice("tsar demo", "what", what, DEMOS)
    DEMOS[what](out)


@app.command(cls=LoggedCommand)
def forecast(
    ctx: typer.Context,
    data: Data = None,
    horizon: Horizon = None,
    recipe: RecipeFile = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A name, see `tsar models`, or the folder of a saved model. What is best within "
            "a minute (AutoForecaster, preset fast) if left out.",
            show_default=False,
        ),
    ] = None,
    target: Targets = None,
    time: TimeColumn = None,
    time_format: TimeFormat = None,
    sep: Separator = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    encoding: Encoding = None,
    header: Header = None,
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
    shard: Shard = None,
    engine: Engine = "local",
    block_rows: BlockRows = 1_000_000,
    fit_rows: Annotated[
        int, typer.Option(help="Rows to fit on at most; of a longer file whole series, a sample.")
    ] = 1_000_000,
    plugin: Plugins = None,
    settings: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Forecast what comes after the series of a file; exit with 3 where some have no forecast."""
    data, horizon = _given(ctx, data, horizon)
    # A recipe has its parameters for the model that it does not name.
    model = model or (DEFAULT_MODEL if ctx.obj else None)
    named = model is None or model in forecaster_names()
    saved = not named and (address_in(model) is not None or Path(str(model)).is_dir())
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
                id_column=series_id or None,
                time_column=time or None,
                file_format=FileFormat(sep, decimal, thousands, header, time_format, encoding),
                target=target or None,
                **{name: ctx.params[name] for name in READING},
                params={} if saved else _params(ctx, model, settings),
                fit_rows=fit_rows,
                report=report,
                resume=resume,
                shard=None if shard is None else parse_shard(shard),
                engine=engine,
                block_rows=block_rows,
                on_progress=on_progress,
            )
        except KeyboardInterrupt:
            remains = " but finished blocks, which --resume goes on with" if out else ""
            print(f"Interrupted: nothing was written{remains}", file=sys.stderr)
            raise typer.Exit(130) from None
    tell_reading(done.reading if verbose else "", target, done.unused)
    if done.forecast is not None:
        print(as_csv(done.forecast), end="")
    if model is None:
        print(f"Forecast by {done.model}", file=sys.stderr)
    note(done.notes)
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
            f"status{' and the report' if report else ''}; the first is "
            f"{plain_label(first['id'])!r}: {first['reason']}",
            *repairs(done.series["status"]),
            sep="\n",
            file=sys.stderr,
        )
        raise typer.Exit(PARTIAL)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a training is, then how many series are done, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        # Even a bar that is disabled ends with an empty line in older versions of rich.
        yield lambda done, n_series: None
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}")),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fit", total=None, count="")
        shown = "fit"

        def show(kind: str, description: str, done: int, total: int, count: str) -> None:
            nonlocal shown
            if kind != shown:
                # What remains is told from how long one step took, and these are other steps.
                bar.reset(task)
                shown = kind
            bar.update(task, description=description, completed=done, total=total, count=count)

        def trained(record: dict[str, float]) -> None:
            done, total = int(record["epoch"]), int(record["last_epoch"])
            description = f"training, loss {record.get('val_loss', record['train_loss']):.4g}"
            show("training", description, done, total, f"epoch {done} of at most {total}")

        def forecast(done: int, n_series: int) -> None:
            show(what, what, done, n_series, f"{done}/{n_series} series")

        # Estimators that are verbose have nothing to draw over this.
        with on_epoch(trained), in_place_of_bars(lambda what, values: None):
            yield forecast


def _given(ctx: typer.Context, data: Path | None, horizon: int | None) -> tuple[Path, int]:
    """Return what has to be given, be it as an option or in a recipe."""
    if data is None:
        ctx.fail("no file: name it as the argument, or as data = ... in the file of --recipe")
    if horizon is None:
        ctx.fail("no horizon: give --horizon, or horizon = ... in the file of --recipe")
    return data, horizon


def _params(ctx: typer.Context, model: str | None, settings: list[str] | None) -> dict[str, Any]:
    """Return the parameters of a model: those of the recipe, with settings in their place."""
    if model is None:
        return parameters_of_unnamed(settings or [])
    if model not in forecaster_names() and Path(model).is_dir():
        raise ParameterError(
            f"--model must be a name of `tsar models` here, {model!r} is the folder of a saved "
            f"model; only tsar forecast takes one"
        )
    recipe_params = ctx.obj.params(model) if ctx.obj else {}
    return {**recipe_params, **parse_parameters(forecaster_class(model), settings or [])}


@app.command(cls=LoggedCommand)
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
    sep: Separator = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    encoding: Encoding = None,
    header: Header = None,
    series_id: IdColumn = None,
    duplicates: Duplicates = "raise",
    gaps: Gaps = None,
    ended: Ended = "forecast",
    ended_after: EndedAfter = 1,
    events: Events = None,
    country_holidays: Holidays = None,
    on_error: OnError = "quarantine",
    out: Annotated[Path | None, typer.Option(help="File for the forecasts and the truth.")] = None,
    latex: Latex = False,
    plugin: Plugins = None,
    settings: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Compare models by what they forecast of the end of a file, with SeasonalNaive among them.

    Exit with 3 where some series cannot be read.
    """
    data, horizon = _given(ctx, data, horizon)
    names = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    params = {name: _params(ctx, name, settings) for name in names}
    if out is not None:
        check_writable(out, inputs=[data])
    stated = FileFormat(sep, decimal, thousands, header, time_format, encoding)
    roles = Roles(series_id or None, time or None, {"target": target or []})
    preparation = preparation_options(ctx.params, roles, stated)
    frame, read, table = read_data(data, roles, stated, params.values(), preparation, verbose)
    models = {
        name: forecaster_class(name)(horizon=horizon, **read).set_params(**params[name])
        for name in names
    }
    frame, n_bad = fit_to_read(frame, list(models.values()), preparation)
    metrics = ["mase", "mae", "rmse", *(["coverage", "interval_width"] if level else [])]
    board = compare(
        models,
        frame,
        metrics=metrics,
        windows=windows,
        level=level or None,
        verbose=int(sys.stderr.isatty()),
    )
    print(board.to_latex() if latex else board)
    if out is not None:
        write_table(table.written_backtest(board.backtest), out)
    if n_bad:
        raise typer.Exit(PARTIAL)


@app.command(cls=LoggedCommand)
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
    sep: Separator = None,
    decimal: Decimal = None,
    thousands: Thousands = None,
    encoding: Encoding = None,
    header: Header = None,
    series_id: IdColumn = None,
    duplicates: Duplicates = "raise",
    gaps: Gaps = None,
    ended: Ended = "forecast",
    ended_after: EndedAfter = 1,
    events: Events = None,
    country_holidays: Holidays = None,
    on_error: OnError = "quarantine",
    out: Annotated[Path | None, typer.Option(help="File for the table of trials.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the best model, fitted on everything.")
    ] = None,
    plugin: Plugins = None,
    settings: Settings = None,
    verbose: Verbose = False,
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
    stated = FileFormat(sep, decimal, thousands, header, time_format, encoding)
    roles = Roles(series_id or None, time or None, {"target": target or []})
    preparation = preparation_options(ctx.params, roles, stated)
    frame, read, _ = read_data(data, roles, stated, [params], preparation, verbose)
    varied = cls(horizon=horizon, **read).set_params(**params)
    frame, n_bad = fit_to_read(frame, [varied], preparation)
    search = OptunaSearch(
        varied,
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
    else:
        # As a whole it is TOML again, to stand in the place of the recipe's table.
        print(f"# {done}\n{as_params_table({**params, **best})}")
        if save is not None:
            again = ["tsar", "forecast", "--recipe", str(recipe), "--model", str(save)]
            print(f"# the fitted model: {shlex.join(again)}")
    if n_bad:
        raise typer.Exit(PARTIAL)


def _setting(name: str, value: Any) -> str:
    """Write a parameter as ``--set`` reads it, in a shell."""
    listed = isinstance(value, list | tuple)
    return shlex.quote(f"{name}={','.join(map(str, value)) if listed else value}")


@app.command(cls=LoggedCommand)
def reproduce(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or the path of a TOML file.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    plugin: Plugins = None,
    latex: Latex = False,
    settings: Settings = None,
) -> None:
    """Reproduce published numbers; exit with 1 where one is outside its band."""
    console = Console()
    if list_all or recipe is None:
        console.print(as_table(["recipe", "what"], _titles()))
        return
    chosen = load_recipe(recipe)
    overrides = parse_parameters(forecaster_class(chosen.model), settings or [])
    # What is printed for LaTeX is the table alone.
    told = Console(stderr=True) if latex else console
    told.print(f"{chosen.title}: {chosen.model}, tsar {tsar.__version__}", highlight=False)
    if overrides:
        told.print(f"instead of the recipe's: {overrides}", highlight=False)
    results: list[Result] = []
    for pair in run_recipe(chosen, overrides):
        results.extend(pair)
        for result in pair:
            told.print(_line(result), highlight=False, soft_wrap=True)
    missed = [result for result in results if not result.within]
    told.print(f"{len(results) - len(missed)} of {len(results)} within their band")
    if latex:
        print(results_to_latex(results))
    raise typer.Exit(1 if missed else 0)


def _titles() -> list[list[str]]:
    return [[name, load_recipe(name).title] for name in recipe_names()]


def _line(result: Result) -> str:
    cell = result.cell.published
    reference = cell.model if result.cell.baseline else "published"
    windows = f"{result.n_windows} windows{', last batch dropped' if cell.drop_last else ''}"
    if not result.cell.band:
        return (
            f"{result.cell.dataset}-{cell.horizon} {result.metric}: "
            f"obtained {result.obtained:.4f}  ({windows}, {result.seconds:.1f} s)"
        )
    return (
        f"{result.cell.dataset}-{cell.horizon} {result.metric}: "
        f"{reference} {result.published:.4f}  "
        f"obtained {result.obtained:.4f}  difference {result.difference:+.4f}  "
        f"band {result.bound}  {'ok' if result.within else 'OUTSIDE'}  "
        f"({windows}, {result.seconds:.1f} s)"
    )


@app.command(cls=Command)
def models(
    name: Annotated[str | None, typer.Argument(help="Show the parameters of one model.")] = None,
    plugin: Plugins = None,
) -> None:
    """List the models and what each can do, or the parameters of one."""
    console = Console()
    if name is not None:
        cls = forecaster_class(name)
        console.print(summary(name), highlight=False)
        rows = [[key, repr(value)] for key, value in cls().get_params(deep=False).items()]
        console.print(as_table(["parameter", "default"], rows))
        return
    console.print(
        as_table(["model", "what"], [[name, summary(name)] for name in forecaster_names()])
    )
    rows = [[name, *abilities(name)] for name in forecaster_names()]
    console.print(as_table(["model", "learns", "covariates", "can"], rows))
    console.print("\n".join(f"{name}: {text}" for name, text in CAPABILITIES.items()))


@app.command(cls=Command)
def check(
    model: Annotated[str, typer.Argument(help="See `tsar models`.")],
    plugin: Plugins = None,
) -> None:
    """Check that a model keeps what every estimator promises; exit with 1 where one does not."""
    failed = 0
    for subject, one in checks_for(forecaster_class(model)):
        try:
            one(subject)
            outcome = "ok"
        except AssertionError as error:
            failed += 1
            outcome = f"FAILED {error}"
        print(f"{check_id(one)}: {outcome}")
    raise typer.Exit(1 if failed else 0)


@app.command(cls=Command)
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
        console.print(as_table(["field", "value"], [[key, str(facts[key])] for key in facts]))
        return
    cards = [load_card(name) for name in dataset_names()]
    rows = [
        [card.name, str(card.rows), str(len(card.columns)), card.frequency, card.title]
        for card in cards
    ]
    console.print(as_table(["name", "rows", "variates", "step", "what"], rows))


@app.command(cls=Command)
def fetch(names: Annotated[list[str], typer.Argument(help="Names from `tsar datasets`.")]) -> None:
    """Fetch data sets into the cache and verify them."""
    for name in names:
        path = fetch_dataset(name)
        print(f"{name}: {'bundled, nothing to fetch' if path is None else path}")
