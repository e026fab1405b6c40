"""A PostgreSQL server for the tests of studies, where one can be started."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

PASSWORD = "open-sesame"


def _programs() -> Path | None:
    """Return the folder of initdb; Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[..., str]]:
    """Start a server on a socket of its own; yield what returns the URL of a new database."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    # A server refuses to run as root, and cannot enter the folders of pytest as another user.
    user = "nobody" if os.geteuid() == 0 else None
    root = tempfile.mkdtemp(prefix="tsar-")
    secret = Path(root, "password")
    secret.write_text(PASSWORD)
    if user:
        shutil.chown(root, user)
        shutil.chown(secret, user)

    def run(program: str, *options: str) -> None:
        command = [str(programs / program), "-D", f"{root}/data", *options]
        subprocess.run(
            command, user=user, cwd=root, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    numbers = count()

    def url(user: str = "tsar", password: str = PASSWORD, database: str = "") -> str:
        if not database:
            database = f"study{next(numbers)}"
            with psycopg.connect(
                f"host={root} user=tsar password={PASSWORD} dbname=postgres", autocommit=True
            ) as connection:
                connection.execute(f"create database {database}")
        return f"postgresql+psycopg://{user}:{password}@/{database}?host={root}"

    try:
        run("initdb", "-U", "tsar", f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "-N")
        # Nothing of it is needed after a crash.
        options = f"-k {root} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-w", "-l", f"{root}/log", "-o", options, "start")
        yield url
        run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
