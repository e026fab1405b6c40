"""Values that are written as TOML are read again as they were."""

import tomllib

from tsar.data.toml import as_toml


def test_values_are_written_as_toml_reads_them():
    for value in (3, -2.5e-7, 1e22, True, 'a "quoted" \\ name\n', "Zürich ✓", [0, "x"], (1, 2)):
        read = tomllib.loads(f"value = {as_toml(value)}")["value"]
        assert read == (list(value) if isinstance(value, tuple) else value)
        assert type(read) is type(value) or isinstance(value, tuple)
    assert tomllib.loads(f"value = {as_toml((0, None))}")["value"] == [0, "none"]
