"""Find the data that travel with tsar: the data-set cards and the recipes.

They are files, not code. In a checkout they lie beside the package, in a wheel inside it.
"""

from pathlib import Path

from tsar.params.constraints import check_choice

__all__ = ["shipped_file", "shipped_names"]

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_names(folder: str) -> list[str]:
    """List the TOML files of a shipped folder by name, without the ending.

    Parameters
    ----------
    folder : str
        ``"datasets"`` or ``"examples/recipes"``.

    Returns
    -------
    list of str
        Sorted, capital letters first.
    """
    return sorted(path.stem for path in _folder(folder).glob("*.toml"))


def shipped_file(folder: str, name: str, owner: str) -> Path:
    """Return the path of one shipped TOML file.

    Parameters
    ----------
    folder : str
        ``"datasets"`` or ``"examples/recipes"``.
    name : str
        Name of the file without the ending.
    owner : str
        Who asks; the first word of the error.

    Raises
    ------
    ParameterError
        If there is no such file; it suggests the nearest name.
    """
    check_choice(owner, "name", name, shipped_names(folder))
    return _folder(folder) / f"{name}.toml"
