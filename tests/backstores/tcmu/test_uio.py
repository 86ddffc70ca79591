"""Devices are found by the name of their backstore; what can't be opened says why."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from backstores.errors import UsageError
from backstores.tcmu import uio

NAMES = {
    "uio0": "tcm-user/7/db/tiergate/db",
    "uio1": "tcm-user/7/mail/tiergate/mail",
    "uio2": "tcm-user/8/db/tiergate/db",
    "uio3": "tcm-user/7/bare",
    "uio4": "some-card",
}


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with some devices; the nodes are missing."""
    for node, name in NAMES.items():
        (tmp_path / node / "maps" / "map0").mkdir(parents=True)
        (tmp_path / node / "name").write_text(f"{name}\n")
        (tmp_path / node / "maps" / "map0" / "size").write_text("0x0000000000800000\n")
    monkeypatch.setattr(uio, "CLASS", tmp_path)
    monkeypatch.setattr(uio, "DEV", tmp_path / "dev")
    return tmp_path


@pytest.mark.parametrize(
    ("hba", "name", "node", "config"),
    [(7, "db", "uio0", "tiergate/db"), (8, "db", "uio2", "tiergate/db"), (7, "bare", "uio3", "")],
    ids=["hba-7", "hba-8", "without-config"],
)
def test_a_device_is_found_by_hba_and_name(hba: int, name: str, node: str, config: str) -> None:
    found = uio.find(hba, name)
    assert (found.node, found.config, found.map_bytes) == (node, config, 0x800000)


def test_a_missing_device_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="enable backstore core/user_9/db first"):
        uio.find(9, "db")


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EBUSY, "end the process that serves it"), (errno.EACCES, "this takes root")],
    ids=["in-use", "no-rights"],
)
def test_a_device_that_can_not_be_opened_says_why(number: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(UsageError, match=f"of backstore db: refused; {hint}"):
        uio.find(7, "db").open()
