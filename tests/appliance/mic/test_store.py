"""The store: SQLite in a state folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.messages import Exposure, HostDefinition
from appliance.mic.settings import AluSetting, PoolSetting, Settings
from appliance.mic.store import FILE_NAME, Store, StoreError, open_store
from backstores.errors import CorruptError, UsageError
from backstores.wwn import Wwn

WWN = Wwn("6" + "0" * 31)
SECRET = "correct horse battery"

SETTINGS = Settings(
    alus=(
        AluSetting("a0", "/x/a0.img", 1 << 62),
        AluSetting("a1", "/dev/sdb"),
        AluSetting("a2", "/dev/sdc", legacy=True),
    ),
    pools=(PoolSetting("fast", ("a1", "a0")),),
    hosts=(
        HostDefinition(name="w", iqn="*"),
        HostDefinition(name="x", iqn="iqn.2026-01.x:y", chap_user="u", chap_secret=SECRET),
    ),
    exposures=(Exposure(host="w", volume=WWN, lun=0), Exposure(host="x", volume=WWN, lun=7)),
)


def test_what_is_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.save(SETTINGS)
    store.close()
    assert open_store(tmp_path).load() == SETTINGS


def test_a_save_replaces_everything(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.save(SETTINGS)
    smaller = Settings(alus=SETTINGS.alus[:1])
    store.save(smaller)
    assert store.load() == smaller


def test_a_save_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.save(SETTINGS)
    nobody = Settings(exposures=(Exposure(host="nobody", volume=WWN, lun=0),))
    with pytest.raises(StoreError, match="can't be saved"):
        store.save(nobody)
    assert store.load() == SETTINGS


def test_no_error_of_the_store_shows_a_secret(tmp_path: Path) -> None:
    """S2: SQLAlchemy puts the values of a failed statement into its errors unless told not to."""
    store = open_store(tmp_path)
    twice = HostDefinition(name="a", iqn="same", chap_secret=SECRET)
    also = HostDefinition(name="b", iqn="same", chap_secret=SECRET)
    with pytest.raises(StoreError) as failed:
        store.save(Settings(hosts=(twice, also)))
    error: BaseException | None = failed.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


@settings(deadline=None, max_examples=25)
@given(names=st.sets(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8), max_size=6))
def test_any_alus_and_pools_read_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    alus = tuple(AluSetting(name, f"/{name}") for name in sorted(names))
    pools = tuple(PoolSetting(name, tuple(sorted(names, reverse=True))) for name in sorted(names))
    store = open_store(tmp_path_factory.mktemp("store"))
    settings = Settings(alus=alus, pools=pools)
    store.save(settings)
    assert store.load() == settings
    store.close()


def test_the_database_and_its_journals_are_the_owners_alone(tmp_path: Path) -> None:
    """R14, S2: mode 0600, whatever the umask."""
    script = (
        "import os, sys, pathlib; os.umask(0);"
        "from appliance.mic.store import open_store; s = open_store(pathlib.Path(sys.argv[1]));"
        "s.set_value('k', 'v');"
        "print(*(f'{p.name}:{p.stat().st_mode & 0o777:o}' for p in pathlib.Path(sys.argv[1]).iterdir()))"
    )
    shown = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True).stdout
    modes = dict(word.split(":") for word in shown.split())
    assert modes == {FILE_NAME: "600", f"{FILE_NAME}-wal": "600", f"{FILE_NAME}-shm": "600"}


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch(0o644)
    open_store(tmp_path).close()
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_unit_states_are_opaque_bytes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.load_unit(WWN) is None
    store.save_unit(WWN, b"\0\xff one")
    store.save_unit(WWN, b"\0\xff two")
    assert store.load_unit(WWN) == b"\0\xff two"
    store.drop_unit(WWN)
    store.drop_unit(WWN)
    assert store.load_unit(WWN) is None


def test_values_are_kept(tmp_path: Path) -> None:
    open_store(tmp_path).set_value("susid", "abc")
    store = open_store(tmp_path)
    assert store.value("susid") == "abc"
    assert store.value("none") is None


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """M3 in the small: write-ahead log with synchronous=FULL, and foreign keys, on every connection."""
    store = open_store(tmp_path)
    with store._engine.connect() as connection:
        pragmas = {
            p: connection.exec_driver_sql(f"PRAGMA {p}").scalar()
            for p in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_database_of_another_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).set_value("schema", "99")
    with pytest.raises(UsageError, match="schema version 99, this program knows 2"):
        open_store(tmp_path)


def test_a_database_from_before_legacy_alus_is_brought_up_to_date(tmp_path: Path) -> None:
    """What was set is kept; from then on an older program refuses it, which would claim a blank legacy ALU (R5)."""
    store = open_store(tmp_path)
    before = Settings(alus=SETTINGS.alus[:2], hosts=SETTINGS.hosts)
    store.save(before)
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE legacy_alu")
    store.set_value("schema", "1")
    store.close()
    store = open_store(tmp_path)
    assert store.load() == before
    assert store.value("schema") == "2"
    store.save(SETTINGS)
    assert store.load() == SETTINGS


def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database at all" * 100)
    with pytest.raises(CorruptError, match="move it away"):
        open_store(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes().startswith(b"this is no database")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle9://u:hunter2hunter2@h/d",
        "postgresql+nodriver://u:hunter2hunter2@h/d",
        "postgresql+nodriver://h/d?user=u&password=hunter2hunter2",
        "postgresql+nodriver//u:hunter2hunter2/d",
        "postgresql+nodriver://u:hunter2hunter2@h:port/d",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Store(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702], ids=oct)
def test_a_folder_in_which_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """S2: they could put a file of theirs in the place of ours."""
    tmp_path.chmod(mode)
    with pytest.raises(UsageError, match=f"has mode {mode:o}, others can write in it: chmod go-w"):
        open_store(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: the owner of a folder can do in it what he likes."""
    found = list(tmp_path.stat())
    found[stat.ST_UID] = 4711
    monkeypatch.setattr(Path, "stat", lambda self: os.stat_result(found))
    with pytest.raises(UsageError, match="belongs to user 4711"):
        open_store(tmp_path)


def test_a_link_in_the_place_of_the_database_is_not_followed(tmp_path: Path) -> None:
    """S2: neither its content nor its mode changes."""
    (victim := tmp_path / "victim").write_text("precious")
    victim.chmod(0o644)
    (state := tmp_path / "state").mkdir(0o700)
    (state / FILE_NAME).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        open_store(state)
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o644)
