"""Every Python block of the README and of the documentation runs as it stands."""

import doctest
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Examples that take longer by themselves, and their arguments here.
SMALLER = {"sales_tutorial.py": ["5"]}


def _blocks(page: Path) -> list[tuple[str, str, int]]:
    text = page.read_text(encoding="utf-8")
    return [
        (found[1], found[2], text.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(text)
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _blocks(page)], ids=lambda page: page.name
)
def test_blocks_run(page, tmp_path, monkeypatch):
    """``python`` blocks must not fail; ``pycon`` blocks must also print what they show."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for kind, source, line in _blocks(page):
        if kind == "python":
            exec(compile("\n" * line + source, str(page), "exec"), names)
            continue
        parsed = doctest.DocTestParser().get_doctest(source, names, page.name, str(page), line)
        report: list[str] = []
        runner.run(parsed, out=report.append, clear_globs=False)
        names.update(parsed.globs)
        assert not report, "".join(report)


def test_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(make [a-z]+)", text, re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
    assert text.index("make demo") < 800


def test_no_page_names_a_machine_path():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # As for a script, its folder is where it imports from.
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "argv", [str(path), *SMALLER.get(path.name, [])])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
