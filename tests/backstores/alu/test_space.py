"""Discard, zeroing and allocation, by whichever way the storage offers."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.alu import space
from backstores.alu.base import AluError, AluFull, AluOp, ByteRun
from tests.support.engines import disk_folder, noise

PAGE = 4096
SIZE = 1 << 20
clearing = pytest.mark.parametrize("op", [AluOp.DISCARD, AluOp.ZERO])


@pytest.fixture
def fd(disk: Path) -> Iterator[int]:
    path = disk / "file"
    path.write_bytes(noise(SIZE))
    number = os.open(path, os.O_RDWR)
    yield number
    os.close(number)


@clearing
@pytest.mark.parametrize("offered", [2, 1, 0], ids=lambda offered: f"{offered}-ways-offered")
@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (PAGE, PAGE), (512, 512), (3 * PAGE - 512, 9 * PAGE), (SIZE - 512, 512)], ids=str
)
def test_reads_as_zeros_whatever_is_offered(
    fd: int, monkeypatch: pytest.MonkeyPatch, op: AluOp, offered: int, offset: int, length: int
) -> None:
    """R1: the range reads as zeros and nothing else changes, with fallocate's ways taken away one by one."""
    fallocate = space.fallocate
    kinds = [mode for mode, kept in (("zero", offered >= 1), ("punch", offered >= 2)) if kept]

    def limited(fd: int, mode: int, offset: int, length: int) -> int:
        kind = "punch" if mode & space.FALLOC_PUNCH_HOLE else "zero"
        return fallocate(fd, mode, offset, length) if kind in kinds else errno.EOPNOTSUPP

    monkeypatch.setattr(space, "fallocate", limited)
    space.clear(fd, "alu", op, offset, length)
    model = bytearray(noise(SIZE))
    model[offset : offset + length] = bytes(length)
    assert os.pread(fd, 2 * SIZE, 0) == model


def test_discard_gives_space_back(fd: int) -> None:
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    space.clear(fd, "alu", AluOp.DISCARD, 0, SIZE // 2)
    os.fsync(fd)
    assert os.fstat(fd).st_blocks <= before // 2 + 16  # 8 KiB for what a file system keeps about it


@clearing
def test_zero_never_extends(fd: int, op: AluOp) -> None:
    space.clear(fd, "alu", op, SIZE - PAGE, PAGE)
    assert os.fstat(fd).st_size == SIZE


@clearing
@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EIO, AluError), (errno.ENOSPC, AluFull), (errno.EDQUOT, AluFull)],
    ids=["EIO", "ENOSPC", "EDQUOT"],
)
def test_an_error_is_no_reason_to_try_another_way(
    fd: int, monkeypatch: pytest.MonkeyPatch, op: AluOp, number: int, kind: type[AluError]
) -> None:
    monkeypatch.setattr(space, "fallocate", lambda *_: number)
    with pytest.raises(kind) as caught:
        space.clear(fd, "alu", op, PAGE, PAGE)
    assert type(caught.value) is kind
    assert (caught.value.path, caught.value.op, caught.value.offset) == ("alu", op, PAGE)
    assert os.pread(fd, SIZE, 0) == noise(SIZE)


def test_writing_zeros_names_the_byte_that_failed(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def failing(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 3 * PAGE:
            raise OSError(errno.EIO, "bad sector")
        return pwrite(fd, data[:PAGE], offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(AluError) as caught:
        space.write_zeros(fd, "alu", AluOp.ZERO, PAGE, 8 * PAGE)
    assert caught.value.offset == 3 * PAGE


def sparse(folder: Path, pages: frozenset[int], count: int) -> int:
    fd = os.open(folder / "sparse", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.truncate(fd, count * PAGE)
    for page in pages:
        os.pwrite(fd, b"x" * PAGE, page * PAGE)
    return fd


@settings(max_examples=60, deadline=None)
@given(st.frozensets(st.integers(0, 31)), st.integers(0, 255), st.integers(1, 256))
def test_runs_tell_what_is_backed(pages: frozenset[int], first: int, sectors: int) -> None:
    """SBC-3 5.4: every byte of the range is in exactly one run, in order, neighbours differ, and the kind is right."""
    offset = first * 512
    length = min(sectors * 512, 32 * PAGE - offset)
    with disk_folder() as folder:
        fd = sparse(folder, pages, 32)
        try:
            found = space.runs(fd, "alu", offset, length)
        finally:
            os.close(fd)
    at = offset
    for run in found:
        assert run.offset == at
        assert run.length > 0
        at += run.length
        assert {page in pages for page in range(run.offset // PAGE, -(-at // PAGE))} == {run.mapped}
    assert at == offset + length
    assert all(one.mapped != other.mapped for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 9, 10])
def test_runs_are_bounded(disk: Path, limit: int) -> None:
    """A file in many fragments does not fill our memory; the rest is called mapped, which is never wrong."""
    fd = sparse(disk, frozenset({1, 3, 5, 7}), 9)
    try:
        found = space.runs(fd, "alu", 0, 9 * PAGE, limit)
    finally:
        os.close(fd)
    exact = [ByteRun(page * PAGE, PAGE, page % 2 == 1) for page in range(9)]
    kept = min(limit - 1, 9)
    rest = [ByteRun(kept * PAGE, (9 - kept) * PAGE, True)] if kept < 8 else exact[kept:]
    assert found == exact[:kept] + rest


def test_small_blocks_are_rounded_to_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with 1 KiB blocks never has a logical block half mapped: data is rounded out."""
    data = [(1024, 2048), (5 * 1024, 6 * 1024), (20 * 1024, 21 * 1024)]

    def lseek(fd: int, offset: int, whence: int) -> int:
        for begin, end in data:
            if offset < end:
                if whence == os.SEEK_DATA:
                    return max(begin, offset)
                return offset if offset < begin else end
        if whence == os.SEEK_DATA:
            raise OSError(errno.ENXIO, "no more data")
        return offset

    monkeypatch.setattr(os, "lseek", lseek)
    assert space.runs(-1, "alu", 0, 8 * PAGE) == [
        ByteRun(0, 2 * PAGE, True),
        ByteRun(2 * PAGE, 3 * PAGE, False),
        ByteRun(5 * PAGE, PAGE, True),
        ByteRun(6 * PAGE, 2 * PAGE, False),
    ]


def test_runs_of_storage_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "bad")

    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(AluError) as caught:
        space.runs(-1, "alu", PAGE, PAGE)
    assert (caught.value.op, caught.value.errno) == (AluOp.STATUS, errno.EIO)
