"""What the tests of the command line have in common."""

import pytest

from tsar.cli import main as cli


@pytest.fixture
def run(capsys):
    """Return a function that runs the command and gives (exit code, stdout, stderr)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        return stop.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def csv(wide, tmp_path):
    path = tmp_path / "data.csv"
    wide.rename_axis("when").to_csv(path)
    return path
