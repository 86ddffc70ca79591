"""The store on a real PostgreSQL, started by the test for itself alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.mic.store import StoreError, open_store
from tests.appliance.mic.test_store import SECRET, SETTINGS, WWN
from tests.support.appliance import appliance

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

pytestmark = [
    pytest.mark.root,  # PostgreSQL refuses to run as root, and only root can run it as somebody else
    pytest.mark.skipif(not PROGRAMS, reason="not installed: postgresql"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run PostgreSQL as another user"),
]
USER = "nobody"


def as_nobody(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], user=USER, group="nogroup", cwd="/", check=True, capture_output=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a fresh database, reached by a UNIX socket in a folder of its own."""
    # Not pytest's folder: nobody may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="tiergate-pg-", dir="/tmp"))
    shutil.chown(folder, USER, "nogroup")
    control = PROGRAMS[-1] / "pg_ctl"
    try:
        as_nobody(PROGRAMS[-1] / "initdb", "-D", folder / "data", "-A", "trust", "-U", "gate", "--no-sync")
        as_nobody(
            control,
            "-D",
            folder / "data",
            "-w",
            "-l",
            folder / "log",
            "-o",
            f"-k {folder} -c listen_addresses=''",
            "start",
        )
        try:
            yield f"postgresql+psycopg://gate@/postgres?host={folder}"
        finally:
            as_nobody(control, "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def test_settings_and_unit_states_are_kept_in_postgresql(url: str, tmp_path: Path) -> None:
    """R14: a PostgreSQL URL works as the SQLite file does."""
    store = open_store(tmp_path, url)
    store.save(SETTINGS)
    store.save_unit(WWN, b"\0reservations\xff")
    store.set_value("susid", "TG-1")
    store.close()

    again = open_store(tmp_path, url)
    assert again.load() == SETTINGS
    assert again.load_unit(WWN) == b"\0reservations\xff"
    assert again.value("susid") == "TG-1"
    again.close()


def test_what_postgresql_refuses_changes_nothing_and_shows_no_secret(url: str, tmp_path: Path) -> None:
    """S2."""
    store = open_store(tmp_path, url)
    store.save(SETTINGS)
    twice = SETTINGS.hosts[1]
    with pytest.raises(StoreError) as caught:
        store.save(SETTINGS.__class__(hosts=(twice, twice)))
    assert SECRET not in str(caught.value)
    assert store.load() == SETTINGS
    store.close()


def test_a_whole_appliance_keeps_its_settings_there(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R14: named by the environment, so that no password stands in the list of processes."""
    monkeypatch.setenv("TIERGATE_DATABASE", url)
    with appliance(tmp_path / "a") as running:
        running.say("/hosts", "create", "name=new", "iqn=iqn.2026-01.x:new")
        running.kill()
        running.start()
        assert "new" in {host["name"] for host in running.say("/hosts", "list")}
        assert not list(running.state.glob("*.db"))
