"""CDBs by SG_IO: what the kernel is given and what it gives back, and where CDBs can be sent at all (R5)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from backstores.alu import sg
from backstores.alu.sg import Answer, Header
from tests.support.engines import loop_device

READ = bytes.fromhex("28000000000000000100")
WRITE = bytes.fromhex("2a000000000000000100")
TEST_UNIT_READY = bytes(6)
SENSE = bytes.fromhex("70000300000000")


def kernel(monkeypatch: pytest.MonkeyPatch, carry_out: Callable[[bytes, Header], None]) -> list[Header]:
    """Stand for a kernel whose devices do as they are told; give the requests it gets."""
    seen: list[Header] = []

    def ioctl(fd: int, request: int, header: Header) -> int:
        assert (fd, request) == (7, sg.SG_IO)
        seen.append(header)
        carry_out(ctypes.string_at(header.cdb, header.cdb_bytes), header)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return seen


def test_the_header_is_laid_out_as_the_kernel_has_it() -> None:
    """scsi/sg.h, on machines of 64 bits."""
    places = {name: getattr(Header, name).offset for name in ("data", "cdb", "sense", "timeout_ms", "user", "status")}
    assert places == {"data": 16, "cdb": 24, "sense": 32, "timeout_ms": 40, "user": 56, "status": 64}
    assert (Header.host_status.offset, Header.residual_bytes.offset, ctypes.sizeof(Header)) == (68, 72, 88)


def test_data_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(cdb: bytes, header: Header) -> None:
        assert cdb == READ
        ctypes.memmove(header.data, b"x" * 500, 500)
        header.residual_bytes = 12

    seen = kernel(monkeypatch, carry_out)
    assert sg.send(7, READ, b"", 512) == Answer(0, b"", b"x" * 500, 0)
    [header] = seen
    assert (header.interface, header.direction, header.data_bytes) == (ord("S"), sg.FROM_DEVICE, 512)


def test_data_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that can't be written, as a transport gives it, is sent all the same."""
    taken: list[bytes] = []
    seen = kernel(monkeypatch, lambda cdb, header: taken.append(cdb + ctypes.string_at(header.data, header.data_bytes)))
    assert sg.send(7, WRITE, memoryview(b"y" * 512), 0) == Answer(0, b"", b"", 0)
    assert taken == [WRITE + b"y" * 512]
    assert seen[0].direction == sg.TO_DEVICE


def test_without_data_none_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = kernel(monkeypatch, lambda cdb, header: None)
    sg.send(7, TEST_UNIT_READY, b"", 0)
    assert (seen[0].direction, seen[0].data_bytes) == (sg.NO_DATA, 0)


def test_an_error_comes_with_its_sense_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(cdb: bytes, header: Header) -> None:
        ctypes.memmove(header.sense, SENSE, len(SENSE))
        header.status, header.sense_bytes, header.residual_bytes = 2, len(SENSE), 512

    kernel(monkeypatch, carry_out)
    assert sg.send(7, READ, b"", 512) == Answer(2, SENSE, b"", 0)


@pytest.mark.parametrize("residual_bytes", [-1, 513, -(1 << 31)], ids=str)
def test_a_residual_that_can_not_be_is_no_harm(monkeypatch: pytest.MonkeyPatch, residual_bytes: int) -> None:
    """S3: drivers have told such."""

    def carry_out(cdb: bytes, header: Header) -> None:
        header.residual_bytes = residual_bytes

    kernel(monkeypatch, carry_out)
    assert len(sg.send(7, READ, b"", 512).data) == (512 if residual_bytes < 0 else 0)


def test_that_the_device_was_not_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def carry_out(cdb: bytes, header: Header) -> None:
        header.host_status = 1

    kernel(monkeypatch, carry_out)
    assert sg.send(7, TEST_UNIT_READY, b"", 0).host_status == 1


# Where CDBs can be sent


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel tells of a disk 8:0, and of its partition 8:1; descriptor 7 is the disk."""
    for name in ("8:0", "8:1"):
        (tmp_path / name / "queue").mkdir(parents=True)
        (tmp_path / name / "queue" / "max_sectors_kb").write_text("512\n")
        (tmp_path / name / "queue" / "max_segments").write_text("65\n")
    (tmp_path / "8:1" / "partition").write_text("1\n")
    opened(monkeypatch, 0)
    return tmp_path


def opened(monkeypatch: pytest.MonkeyPatch, minor: int) -> None:
    device = os.stat_result((0o060600, 1, 1, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": os.makedev(8, minor)})
    monkeypatch.setattr(os, "fstat", lambda fd: device)


def answering(monkeypatch: pytest.MonkeyPatch, version: int | OSError = 30536, inquiry: bytes = b"\0") -> None:
    """Let the device answer the two questions that it is asked."""

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        assert request == sg.SG_GET_VERSION_NUM
        if isinstance(version, OSError):
            raise version
        return struct.pack("i", version)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(sg, "send", lambda fd, cdb, out, length: Answer(0, b"", inquiry, 0))


@pytest.mark.parametrize(
    ("sectors_kb", "segments", "expected"),
    [(512, 65, 256 << 10), (128, 65, 128 << 10), (1280, 1 << 16, 1280 << 10), (4, 1, 4096)],
    ids=str,
)
def test_how_much_one_cdb_moves_is_what_the_queue_takes(
    monkeypatch: pytest.MonkeyPatch, sysfs: Path, sectors_kb: int, segments: int, expected: int
) -> None:
    """In bytes and in pages, for memory need not be aligned."""
    answering(monkeypatch)
    (sysfs / "8:0" / "queue" / "max_sectors_kb").write_text(f"{sectors_kb}\n")
    (sysfs / "8:0" / "queue" / "max_segments").write_text(f"{segments}\n")
    assert sg.most_bytes(7, sysfs) == expected


def test_a_partition_is_sent_none(monkeypatch: pytest.MonkeyPatch, sysfs: Path) -> None:
    """The kernel takes CDBs there from root, with the addresses of the whole disk."""
    answering(monkeypatch)
    opened(monkeypatch, 1)
    assert sg.most_bytes(7, sysfs) is None


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL], ids=lambda n: errno.errorcode[n])
def test_what_knows_no_such_call_is_sent_none(monkeypatch: pytest.MonkeyPatch, sysfs: Path, number: int) -> None:
    answering(monkeypatch, OSError(number, "no"))
    assert sg.most_bytes(7, sysfs) is None


def test_an_old_interface_is_not_used(monkeypatch: pytest.MonkeyPatch, sysfs: Path) -> None:
    answering(monkeypatch, version=20139)
    assert sg.most_bytes(7, sysfs) is None


@pytest.mark.parametrize("inquiry", [b"\x05", b"\x20", b""], ids=["optical", "not-connected", "nothing"])
def test_what_is_no_disk_is_sent_none(monkeypatch: pytest.MonkeyPatch, sysfs: Path, inquiry: bytes) -> None:
    answering(monkeypatch, inquiry=inquiry)
    assert sg.most_bytes(7, sysfs) is None


def test_a_device_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, sysfs: Path) -> None:
    answering(monkeypatch, OSError(errno.ENXIO, "gone"))
    with pytest.raises(OSError, match="gone"):
        sg.most_bytes(7, sysfs)


@pytest.mark.root
def test_a_loop_device_is_sent_none(disk: Path) -> None:
    with loop_device(disk / "backing", 1 << 20) as path, Path(path).open("rb") as device:
        assert sg.most_bytes(device.fileno()) is None
