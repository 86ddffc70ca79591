"""The hot path moves all bytes without a wait, or answers False and has changed nothing that matters."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from backstores.alu.now import Now, page_cache
from backstores.engine.beside import NoHand
from tests.support.engines import noise, view

PAGE = 4096
SIZE = 64 * PAGE


@pytest.fixture
def fd(disk: Path) -> Iterator[int]:
    """A file with content, none of it in the page cache."""
    path = disk / "file"
    path.write_bytes(noise(SIZE))
    number = os.open(path, os.O_RDWR)
    evict(number)
    yield number
    os.close(number)


def evict(fd: int) -> None:
    """Put all pages out of the cache. The kernel takes that as a wish: a page that it is just busy with stays."""
    for _ in range(1000):
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not pages_in_cache(fd):
            return
    raise AssertionError("the kernel keeps pages of this file in its cache")


def pages_in_cache(fd: int) -> int:
    """Count a file's cached pages by mincore(2); a read that probes would have the kernel read ahead."""
    with mmap.mmap(fd, 0) as mapped:
        residency = (ctypes.c_ubyte * (len(mapped) // PAGE))()
        start = ctypes.c_char.from_buffer(mapped)
        try:
            address = ctypes.c_void_p(ctypes.addressof(start))
            assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(mapped)), residency) == 0
        finally:
            del start
    return sum(flag & 1 for flag in residency)


def never() -> bool:
    raise AssertionError("a write-back was asked for")


def at_once(fd: int, start_writeback: Callable[[], bool] = never, dirty_bytes: int = SIZE) -> Now:
    return page_cache(fd, start_writeback, dirty_bytes)


def test_a_read_that_is_not_cached_waits(fd: int) -> None:
    """The loop never blocks on a disk: what is not in the page cache is not read now."""
    made = at_once(fd)
    evict(fd)
    into = view(bytes(PAGE))
    assert not made.read(8 * PAGE, into)
    os.pread(fd, PAGE, 8 * PAGE)
    assert made.read(8 * PAGE, into)
    assert into == noise(SIZE)[8 * PAGE : 9 * PAGE]


def test_several_buffers_are_one_transfer(fd: int) -> None:
    """What a column gets of a request that crosses chunks lies in one piece on its ALU."""
    made = at_once(fd)
    os.pread(fd, SIZE, 0)
    room = bytearray(4 * PAGE)
    parts = [memoryview(room)[2 * PAGE :], memoryview(room)[: 2 * PAGE]]
    assert made.readv(PAGE, parts)
    assert parts[0].tobytes() + parts[1].tobytes() == noise(SIZE)[PAGE : 5 * PAGE]
    assert made.writev(8 * PAGE, parts)
    assert made.writev(12 * PAGE, parts), "also when it is known what the file system takes"
    assert os.pread(fd, 8 * PAGE, 8 * PAGE) == 2 * noise(SIZE)[PAGE : 5 * PAGE]


@pytest.mark.parametrize("op", ["readv", "writev"])
def test_several_buffers_wait_as_one_does(fd: int, op: str) -> None:
    """What is not in the page cache is not touched now: the last part of these is not."""
    made = at_once(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    evict(fd)
    os.pread(fd, PAGE, 0)
    page, half = view(bytes(PAGE)), view(bytes(512))
    assert not getattr(made, op)(0, [page, half])
    os.pread(fd, PAGE, PAGE)
    assert getattr(made, op)(0, [page, half])


def test_more_buffers_than_the_kernel_takes_wait(fd: int) -> None:
    """The general way cuts them (IOV_MAX)."""
    made, parts = at_once(fd), [view(bytes(8))] * (os.sysconf("SC_IOV_MAX") + 1)
    os.pread(fd, SIZE, 0)
    assert not made.readv(0, parts)
    assert not made.writev(0, parts)


def test_a_read_that_is_partly_cached_waits(fd: int) -> None:
    made = at_once(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    evict(fd)
    os.pread(fd, PAGE, 8 * PAGE)
    assert not made.read(8 * PAGE, view(bytes(2 * PAGE)))


@pytest.mark.parametrize(
    ("offset", "length", "cached", "expected"),
    [
        (0, PAGE, (), True),
        (3 * PAGE, 5 * PAGE, (), True),
        (512, 512, (), False),
        (512, 512, (0,), True),
        (512, PAGE, (0,), False),
        (512, PAGE, (1,), False),
        (512, PAGE, (0, 1), True),
        (PAGE, PAGE + 512, (), False),
        (PAGE, PAGE + 512, (2,), True),
        (PAGE - 512, 3 * PAGE + 1024, (0, 4), True),
        (PAGE - 512, 3 * PAGE + 1024, (4,), False),
    ],
    ids=[
        "a page",
        "pages",
        "inside a page",
        "inside a cached page",
        "its tail is not cached",
        "its head is not cached",
        "both are",
        "a tail that is not cached",
        "a cached tail",
        "cached head and tail round pages that are not",
        "the same without the head",
    ],
)
def test_a_write_of_part_of_a_page_needs_the_page(
    fd: int, offset: int, length: int, cached: tuple[int, ...], expected: bool
) -> None:
    """Whole pages go into the cache at once; parts of pages only where the kernel needs to read nothing."""
    made = at_once(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    evict(fd)
    for page in cached:
        os.pread(fd, 1, page * PAGE)
    content = noise(length, 2)
    assert made.write(offset, view(content)) is expected
    model = bytearray(noise(SIZE))
    if expected:
        model[offset : offset + length] = content
    assert os.pread(fd, SIZE, 0) == model


def test_in_memory_file_systems_never_wait() -> None:
    """tmpfs takes no RWF_NOWAIT and needs none."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no /dev/shm here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        number = os.open(f"{folder}/file", os.O_RDWR | os.O_CREAT)
        os.truncate(number, SIZE)
        made = at_once(number)
        into = view(bytes(1024))
        assert made.write(512, view(noise(1024)))
        assert made.read(512, into)
        assert into == noise(1024)
        os.close(number)


def test_unknown_file_systems_always_wait(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can't say what is cached, nothing is done in the event loop."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not offered")

    monkeypatch.setattr(os, "preadv", refuse)
    made = at_once(fd)
    assert not made.read(0, view(bytes(PAGE)))
    assert not made.write(0, view(bytes(PAGE)))
    assert not made.readv(0, [view(bytes(PAGE))])
    assert not made.writev(0, [view(bytes(PAGE))])


def test_the_first_write_shows_what_the_file_system_takes(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RWF_NOWAIT is tried once where it is refused, and used for good where it is taken."""
    tried = []

    def refuse(*_: object) -> int:
        tried.append("refused")
        raise OSError(errno.EOPNOTSUPP, "not offered")

    made = at_once(fd)
    monkeypatch.setattr(os, "pwritev", refuse)
    assert made.write(0, view(bytes(PAGE)))
    assert made.write(0, view(bytes(PAGE)))
    assert tried == ["refused"]

    def take(*_: object) -> int:
        tried.append("taken")
        return PAGE

    made = at_once(fd)
    monkeypatch.setattr(os, "pwritev", take)
    assert made.write(0, view(bytes(PAGE)))
    assert made.write(0, view(bytes(PAGE)))
    assert tried == ["refused", "taken", "taken"]


class Writeback:
    """Stands in for the write-back of an engine."""

    def __init__(self) -> None:
        self.started = 0
        self.runs = False

    def start(self) -> bool:
        if self.runs:
            return False
        self.started += 1
        self.runs = True
        return True


def test_the_dirty_budget(fd: int) -> None:
    """A write-back starts when the budget is spent; a second budget is spent meanwhile; then writes wait for it."""
    writeback = Writeback()
    made = at_once(fd, writeback.start, dirty_bytes=4 * PAGE)
    page = view(bytes(PAGE))
    assert [made.write(at * PAGE, page) for at in range(4)] == [True] * 4
    assert writeback.started == 0
    assert [made.write(at * PAGE, page) for at in range(4)] == [True] * 4
    assert writeback.started == 1
    assert not made.write(0, page)
    assert made.read(0, view(bytes(PAGE)))
    assert not made.writev(0, [page])
    writeback.runs = False
    assert [made.writev(at * PAGE, [page]) for at in range(5)] == [True] * 4 + [False]
    assert writeback.started == 2


def test_a_write_larger_than_the_budget_waits(fd: int) -> None:
    assert not at_once(fd, dirty_bytes=PAGE).write(0, view(bytes(2 * PAGE)))


def test_retired_callables_touch_nothing(fd: int) -> None:
    """A number that was closed may be another file's."""
    made = at_once(fd)
    os.pread(fd, SIZE, 0)
    made.retire()
    before = os.pread(fd, SIZE, 0)
    assert not made.read(0, view(bytes(PAGE)))
    assert not made.write(0, view(noise(PAGE, 9)))
    assert not made.readv(0, [view(bytes(PAGE))])
    assert not made.writev(0, [view(noise(PAGE, 9))])
    assert os.pread(fd, SIZE, 0) == before


def test_any_memory(fd: int) -> None:
    """Slices of mappings are as good as byte arrays."""
    made = at_once(fd)
    memory = memoryview(mmap.mmap(-1, 2 * PAGE))
    memory[100 : 100 + PAGE] = noise(PAGE, 3)
    assert made.write(0, memory[100 : 100 + PAGE])
    assert made.read(0, memory[200 : 200 + PAGE])
    assert memory[200 : 200 + PAGE] == noise(PAGE, 3)


class Noted(NoHand):
    """Writes nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []  # (offset, flags)

    def begin(self, fd: int, parts: Sequence[memoryview], offset: int, flags: int) -> bool:
        self.begun.append((offset, flags))
        return True


@pytest.mark.parametrize("takes", [False, True], ids=["refuses RWF_NOWAIT", "takes RWF_NOWAIT"])
def test_what_is_written_beside_waits_as_little(fd: int, monkeypatch: pytest.MonkeyPatch, takes: bool) -> None:
    """With the flags that the first write has found right; until then with none."""

    def answer(fd: int, parts: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags and not takes:
            raise OSError(errno.EOPNOTSUPP, "not offered")
        return PAGE

    monkeypatch.setattr(os, "pwritev", answer)
    made, hand, page = at_once(fd), Noted(), view(bytes(PAGE))
    assert not made.write_beside(hand, 0, [page])
    assert made.write(0, page)
    assert made.write_beside(hand, PAGE, [page])
    assert hand.begun == [(PAGE, os.RWF_NOWAIT if takes else 0)]


def test_what_is_written_beside_spends_the_dirty_budget(fd: int) -> None:
    writeback = Writeback()
    writeback.runs = True
    made, hand, page = at_once(fd, writeback.start, dirty_bytes=4 * PAGE), Noted(), view(bytes(PAGE))
    assert made.write(0, page)
    assert [made.write_beside(hand, at * PAGE, [page]) for at in range(4)] == [True] * 3 + [False]
    assert not made.write(0, page)


def test_part_of_a_page_that_is_not_cached_is_not_written_beside(fd: int) -> None:
    made, hand = at_once(fd), Noted()
    assert made.write(0, view(bytes(PAGE)))
    evict(fd)
    assert not made.write_beside(hand, 8 * PAGE + 512, [view(bytes(PAGE))])
    assert not hand.begun
