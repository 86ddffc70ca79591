"""Key files: made once, whole, and nobody else's to read (S4)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from appliance.identity import Identity
from appliance.processes.keys import FOLDER, ensure_keys, read_key
from backstores.errors import CorruptError, TiergateError, UsageError

WHO = Identity("TG-1", "iqn.2026-11.example:tiergate")


def test_keys_are_made_once(tmp_path: Path) -> None:
    made = ensure_keys(tmp_path, ["mic", "sp1"], WHO)
    assert ensure_keys(tmp_path, ["mic", "sp1"], WHO) == made
    grown = ensure_keys(tmp_path, ["mic", "sp1", "sp2"], WHO)
    assert grown.files.items() >= made.files.items()


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    ensure_keys(tmp_path, ["sp1"], WHO)
    folder = tmp_path / FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"vcm.key": 0o600, "sp1.key": 0o600}


def test_a_file_holds_what_one_process_needs(tmp_path: Path) -> None:
    """R9: on another machine it is all that there is."""
    ring = ensure_keys(tmp_path, ["sp1", "sp2"], WHO)
    carried = read_key(tmp_path / FOLDER / "sp1.key")
    assert carried == ring.files["sp1"]
    assert carried.vcm_key == ring.files["vcm"].keys.public
    assert ring.who_has(carried.keys.public) == "sp1"


def test_a_key_that_is_not_in_the_folder_is_nobodys(tmp_path: Path) -> None:
    ours = ensure_keys(tmp_path / ".", ["sp1"], WHO)
    (tmp_path / "other").mkdir()
    theirs = ensure_keys(tmp_path / "other", ["sp1"], WHO)
    assert ours.who_has(theirs.files["sp1"].keys.public) is None
    assert ours.who_has(ours.files["vcm"].keys.public) is None, "the VCM is no peer of its own"


def test_who_the_appliance_is_goes_with_the_keys(tmp_path: Path) -> None:
    """R9: an SP on another machine must know the names; they may change, the keys stay."""
    before = ensure_keys(tmp_path, ["sp1"], WHO).files["sp1"]
    assert (before.susid, before.iqn) == ("TG-1", "iqn.2026-11.example:tiergate")
    after = ensure_keys(tmp_path, ["sp1"], Identity("TG-1", "iqn.2026-11.example:other")).files["sp1"]
    assert (after.keys, after.iqn) == (before.keys, "iqn.2026-11.example:other")
    assert read_key(tmp_path / FOLDER / "sp1.key") == after


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """S2: in a log, for instance."""
    ring = ensure_keys(tmp_path, ["sp1"], WHO)
    assert ring.files["sp1"].secret not in repr(ring)
    assert ring.files["sp1"].secret not in repr(ring.files["sp1"].keys)


def changed(path: Path, **values: object) -> None:
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **values}))


BAD = {
    "readable by others": (lambda path: path.chmod(0o640), UsageError, "by others .mode 0640.: type chmod 600"),
    "empty": (lambda path: path.write_bytes(b""), CorruptError, "is no key file"),
    "no text": (lambda path: path.write_bytes(b"\xff" * 5000), CorruptError, "is no key file"),
    "of a later format": (lambda path: changed(path, format=2), CorruptError, "has format 2, this program knows 1"),
    "with a key too short": (lambda path: changed(path, secret="x"), CorruptError, "is no key file"),
    "of somebody else": (lambda path: changed(path, name="sp2"), CorruptError, "is that of sp2"),
    "for another VCM": (lambda path: changed(path, vcm="0" * 40), CorruptError, "is for another VCM"),
}


@pytest.mark.parametrize(("spoil", "error", "message"), BAD.values(), ids=BAD)
def test_a_key_file_that_can_not_be_used_is_told(
    tmp_path: Path, spoil: object, error: type[TiergateError], message: str
) -> None:
    ensure_keys(tmp_path, ["sp1"], WHO)
    assert callable(spoil)
    spoil(tmp_path / FOLDER / "sp1.key")
    with pytest.raises(error, match=message):
        ensure_keys(tmp_path, ["sp1"], WHO)


def test_a_key_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read: No such file"):
        read_key(tmp_path / "sp1.key")


def test_what_a_crash_has_left_is_no_hindrance(tmp_path: Path) -> None:
    """A file has its name when it is whole."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "sp1.new").write_text("half")
    assert ensure_keys(tmp_path, ["sp1"], WHO).files["sp1"].name == "sp1"
