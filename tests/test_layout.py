"""The layout of the package: who may import whom, and what stays in one place."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tsar"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = [
    *MODULES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
]

# Modules that core may use, besides the standard library: of the base installation, and
# kernels that may be missing.
CORE_MAY_USE = {"torch", "mamba_ssm"}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "tsar"


def _imports(path: Path) -> list[str]:
    """List the modules that a file imports, those for annotations only left out."""
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "tsar":
                submodules = {_layer(_name(module)) for module in MODULES}
                found.extend(
                    f"tsar.{alias.name}" if alias.name in submodules else "tsar"
                    for alias in node.names
                )
            else:
                found.append(node.module or "")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", [p for p in MODULES if "core" in p.parts], ids=_name)
def test_core_knows_only_torch(path):
    outside = {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names)
    assert outside <= CORE_MAY_USE | {"tsar"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_device_names_live_in_one_place(path):
    if _name(path) == "tsar.training.device":
        pytest.skip("the one place")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert id(node) in documentation or "cuda" not in node.value, f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda", f"line {node.lineno}: ask tsar.training.device"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_short_enough_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
    assert path.stem not in ("utils", "helpers", "misc", "common")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_public_names_exist(path):
    module = __import__(_name(path), fromlist=["x"])
    if path.stem != "__init__" and path.stem != "__main__":
        assert hasattr(module, "__all__"), "say what is public in __all__"
    for name in getattr(module, "__all__", []):
        assert hasattr(module, name)
    assert len(set(getattr(module, "__all__", []))) == len(getattr(module, "__all__", []))


def test_no_leftovers():
    pattern = re.compile(r"\b(TODO|FIXME|XXX)\b|except Exception:|except:")
    for path in MODULES:
        assert not pattern.search(path.read_text(encoding="utf-8")), path


# They say that there is something, and not what.
SAY_NOTHING = {"known", "given", "found", "asked", "kept"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_names_say_what_they_hold(path):
    """Variables, parameters, attributes, functions, classes and modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = ("id", "arg", "attr", "name")
    names = {
        (getattr(node, attribute), getattr(node, "lineno", 0))
        for node in ast.walk(tree)
        for attribute in attributes
        if isinstance(getattr(node, attribute, None), str)
    }
    assert not [(name, line) for name, line in names if name in SAY_NOTHING]
    assert path.stem not in SAY_NOTHING
