"""The page of a class: what users call first, parameters in groups, no machinery.

The directive ``class-page`` writes the page of one class. What it has from its bases is part of its
docstring already, see :mod:`tsar.estimator.documentation`.
"""

import inspect
from typing import Any, ClassVar

from docutils import nodes
from numpydoc.docscrape import NumpyDocString, Parameter
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tsar.estimator.base import Estimator
from tsar.estimator.documentation import parameter_groups

# What users do with a forecaster, in this order; whatever else is public is for authors.
METHODS = {
    "Fit and forecast": ("fit", "predict", "calibrate", "score", "save", "partial_fit", "pretrain"),
    "Covariates and explanations": (
        "make_future_frame",
        "check_future",
        "explain",
        "fitted_values",
    ),
    "As in scikit-learn": ("get_params", "set_params"),
}
AUTHORS = "For authors of forecasters"


def described(cls: type, *sections: str) -> dict[str, Parameter]:
    """Return what the docstring of a class says of each parameter or attribute.

    A line that describes several is that of each.
    """
    parsed = NumpyDocString(inspect.cleandoc(cls.__doc__ or ""))
    entries = [entry for section in sections for entry in parsed[section]]
    return {name.strip().lstrip("*"): entry for entry in entries for name in entry.name.split(",")}


def public_methods(cls: type) -> list[str]:
    """Return the methods of a class that somebody calls, in the order of their groups.

    The requests that scikit-learn adds for its metadata routing are none of them.
    """
    ours = [
        name
        for name in dir(cls)
        if not name.startswith("_")
        and inspect.isroutine(inspect.getattr_static(cls, name))
        and getattr(getattr(cls, name), "__module__", None)
        and str(getattr(cls, name).__module__).startswith(("tsar", "sklearn"))
        and not (name.startswith("set_") and name.endswith("_request"))
        and name != "get_metadata_routing"
    ]
    known = [name for names in METHODS.values() for name in names]
    return sorted(ours, key=lambda name: (known.index(name) if name in known else len(known), name))


def _table(entries: dict[str, Parameter], defaults: dict[str, Any]) -> list[str]:
    """Write a table of names, with their defaults, and what they mean."""
    lines = [".. list-table::", "   :widths: 28 72", "   :class: parameters", ""]
    for name, entry in entries.items():
        default = f" = {defaults[name]!r}" if name in defaults else ""
        kind = entry.type.split(", default")[0].strip()
        lines += [
            f"   * - ``{name}{default}``",
            f"     - *{_plain(kind)}*" if kind else "     - ",
            "",
        ]
        lines += [f"       {line}" for line in entry.desc] + [""]
    return lines


def _plain(text: str) -> str:
    """Leave no markup in what is written in italics."""
    return text.replace("`", "").replace("*", "\\*")


def page_of(path: str, cls: type) -> list[str]:
    """Write the page of a class."""
    is_estimator = issubclass(cls, Estimator)
    methods = public_methods(cls)
    groups = METHODS if is_estimator else {"Methods": tuple(methods)}
    shown = {title: [name for name in names if name in methods] for title, names in groups.items()}
    listed = [name for names in shown.values() for name in names]
    lines = [f".. autoclass:: {path}", "   :no-members:", ""]
    for title, names in shown.items():
        lines += _summaries(title, path, names)
    if is_estimator:
        lines += _parameters(cls)
    for name in listed:
        lines += [f".. automethod:: {path}.{name}", ""]
    return lines + _summaries(AUTHORS, path, [name for name in methods if name not in listed])


def _summaries(title: str, path: str, names: list[str]) -> list[str]:
    if not names:
        return []
    lines = [f".. rubric:: {title}", "", ".. autosummary::", "   :nosignatures:", ""]
    return lines + [f"   ~{path}.{name}" for name in names] + [""]


def _parameters(cls: type) -> list[str]:
    meaning = described(cls, "Parameters", "Other Parameters")
    defaults = {name: one.default for name, one in inspect.signature(cls).parameters.items()}
    lines: list[str] = []
    for group, names in parameter_groups(cls).items():
        entries = {name: meaning[name] for name in names}
        if entries:
            lines += [f".. rubric:: Parameters: {group}", "", *_table(entries, defaults)]
    learned = described(cls, "Attributes")
    if learned:
        lines += [".. rubric:: Attributes after fit", "", *_table(learned, {})]
    return lines


class ClassPage(SphinxDirective):
    """Write what :func:`page_of` says of the class that is named."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        # Pages are written again when this file changes.
        self.env.note_dependency(__file__)
        path = self.arguments[0]
        module, _, name = path.rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
        return self.parse_text_to_nodes("\n".join(page_of(path, cls)), allow_section_headings=True)


def write_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Write the parameters of an estimator with their defaults alone."""
    if what != "class" or not (inspect.isclass(obj) and issubclass(obj, Estimator)):
        return None
    parameters = inspect.signature(obj).parameters.values()
    return f"(*, {', '.join(f'{one.name}={one.default!r}' for one in parameters)})", returns


def drop_own_tables(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Take the sections off the docstring of an estimator that the page has in groups."""
    if what == "class" and inspect.isclass(obj) and issubclass(obj, Estimator):
        for title in ("Parameters", "Other Parameters", "Attributes"):
            drop_section(lines, title)


def drop_section(lines: list[str], title: str) -> None:
    """Remove a section of a numpydoc docstring in place."""
    heads = [
        place
        for place in range(len(lines) - 1)
        if lines[place].strip() and set(lines[place + 1].strip()) == {"-"}
    ]
    for place, head in enumerate(heads):
        if lines[head].strip() == title:
            stop = heads[place + 1] if place + 1 < len(heads) else len(lines)
            del lines[head:stop]
            return


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("class-page", ClassPage)
    app.connect("autodoc-process-signature", write_signature)
    # Before numpydoc, which rewrites the sections.
    app.connect("autodoc-process-docstring", drop_own_tables, priority=100)
    return {"parallel_read_safe": True}
