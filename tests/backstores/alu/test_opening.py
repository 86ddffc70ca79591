"""What may be an ALU, and one clear line about what may not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backstores.alu.base import Kind
from backstores.alu.opening import open_alu
from backstores.errors import UsageError

MIB = 1 << 20


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def loop_of_links(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere") / "deep")


def read_only(path: Path) -> None:
    path.write_bytes(bytes(MIB))
    path.chmod(0o444)


def empty(path: Path) -> None:
    path.touch()


def tiny(path: Path) -> None:
    path.write_bytes(bytes(4095))


def nothing(path: Path) -> None:
    """Leave the path free."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (folder, "is a directory"),
        (pipe, "is a pipe"),
        (unix_socket, "is a socket"),
        (loop_of_links, "is a loop of symbolic links"),
        (dangling_link, "does not exist; give its size to have it made"),
        (read_only, "is read-only"),
        (empty, "has 0 bytes; an ALU has 4096 at least"),
        (tiny, "has 4095 bytes; an ALU has 4096 at least"),
        (nothing, "does not exist; give its size to have it made"),
    ],
)
def test_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    """R1: what is no file and no block device is refused in one line that names it, and stays as it was."""
    path = tmp_path / "alu"
    make(path)
    before = sorted((entry.name, entry.lstat().st_size) for entry in tmp_path.iterdir())
    with pytest.raises(UsageError) as caught:
        open_alu(str(path))
    assert str(caught.value).startswith(f"{path} {reason}")
    assert "\n" not in str(caught.value)
    assert sorted((entry.name, entry.lstat().st_size) for entry in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/null", "/dev/null is a character device"),
        ("/proc/self/status/alu", "lies in something that is not a directory"),
        ("a\0b", "is no path"),
        ("/" + "x" * 300, "is too long a path"),
        ("", " does not exist"),
    ],
    ids=["device", "below-a-file", "nul", "long", "empty"],
)
def test_refused_paths(path: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        open_alu(path)


@pytest.mark.parametrize("size_bytes", [0, -4096, 1000, 4097], ids=str)
def test_refused_sizes(tmp_path: Path, size_bytes: int) -> None:
    with pytest.raises(UsageError, match=f"size {size_bytes} is no positive multiple of 4096"):
        open_alu(str(tmp_path / "alu"), size_bytes=size_bytes)
    assert not list(tmp_path.iterdir())


def test_a_size_no_file_system_takes(tmp_path: Path) -> None:
    """What can't be made leaves no file behind."""
    with pytest.raises(UsageError, match="would be larger than its file system"):
        open_alu(str(tmp_path / "alu"), size_bytes=1 << 62)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0, 0o022, 0o777], ids=oct)
def test_made_on_demand(tmp_path: Path, umask: int) -> None:
    """R1: sparse, of the size asked for, and for its owner alone whatever the umask."""
    path = tmp_path / "alu"
    before = os.umask(umask)
    try:
        driver = open_alu(str(path), size_bytes=64 * MIB)
    finally:
        os.umask(before)
    driver.close()
    found = path.stat()
    assert (driver.kind, driver.size_bytes, driver.sector_bytes) == (Kind.FILE, 64 * MIB, 512)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == 64 * MIB
    assert found.st_blocks == 0


def test_an_existing_file_keeps_its_size_and_content(tmp_path: Path) -> None:
    path = tmp_path / "alu"
    path.write_bytes(b"precious" * 1000)
    driver = open_alu(str(path))
    driver.close()
    assert driver.size_bytes == 4096  # whole pages
    assert path.read_bytes() == b"precious" * 1000


@pytest.mark.parametrize(
    ("size_bytes", "grow", "size_after"),
    [(MIB, False, MIB), (2 * MIB, True, 2 * MIB), (MIB, True, MIB)],
    ids=["same", "grown", "same-may-grow"],
)
def test_a_size_that_fits_an_existing_file(tmp_path: Path, size_bytes: int, grow: bool, size_after: int) -> None:
    path = tmp_path / "alu"
    path.write_bytes(bytes(MIB))
    driver = open_alu(str(path), size_bytes=size_bytes, grow=grow)
    driver.close()
    assert driver.size_bytes == path.stat().st_size == size_after


@pytest.mark.parametrize(("size_bytes", "grow"), [(2 * MIB, False), (MIB // 2, False), (MIB // 2, True)], ids=str)
def test_a_size_that_does_not(tmp_path: Path, size_bytes: int, grow: bool) -> None:
    """A file is never cut off, and grows only when that was asked for."""
    path = tmp_path / "alu"
    path.write_bytes(bytes(MIB))
    with pytest.raises(UsageError, match=f"has {MIB} bytes, not {size_bytes}"):
        open_alu(str(path), size_bytes=size_bytes, grow=grow)
    assert path.stat().st_size == MIB
    open_alu(str(path)).close()  # and the lock is gone


def test_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(bytes(MIB))
    (tmp_path / "alu").symlink_to(tmp_path / "real")
    open_alu(str(tmp_path / "alu")).close()
