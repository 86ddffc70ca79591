"""Rings that can't be: each is refused by name, and nothing outside of the memory is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.tcmu.formats import EntryHeader, IoVector, Mailbox, Operation, Request, TaskManagement
from backstores.tcmu.ring import Ring, RingCommand, RingError
from backstores.wire import Bits, WireError
from tests.support.tcmu_kernel import GOOD, SimulatedKernel

WRITE_10 = bytes([0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0])
ENTRY = Mailbox.SIZE  # the first one
VECTOR = ENTRY + Request.SIZE
HUGE = (1 << 64) - 1

Change = tuple[Bits, int, int]


def one_command() -> SimulatedKernel:
    """A ring with one WRITE in it."""
    kernel = SimulatedKernel(ring_bytes=1024)
    assert kernel.command(WRITE_10, bytes(512)) is not None
    return kernel


MAILBOXES: dict[str, tuple[Bits, int, str]] = {
    "other-version": (Mailbox.version, 3, "ring version 3 is not 2"),
    "in-order-only": (Mailbox.flags, 2, r"can't take completions out of order \(flags 0x2\)"),
    "ring-in-mailbox": (Mailbox.ring_at, 64, "a ring of 1024 bytes at 64 does not fit"),
    "ring-misaligned": (Mailbox.ring_at, 132, "a ring of 1024 bytes at 132 does not fit"),
    "ring-empty": (Mailbox.ring_bytes, 0, "a ring of 0 bytes at 128 does not fit"),
    "ring-past-memory": (Mailbox.ring_bytes, 0xFFFFFFF8, "a ring of 4294967288 bytes at 128 does not fit"),
    "tail-past-ring": (Mailbox.tail, 1024, "tail 1024 is no place in a ring of 1024 bytes"),
    "tail-misaligned": (Mailbox.tail, 4, "tail 4 is no place in a ring of 1024 bytes"),
}


@pytest.mark.parametrize(("field", "value", "complaint"), MAILBOXES.values(), ids=MAILBOXES)
def test_a_mailbox_that_is_not_ours_is_refused(field: Bits, value: int, complaint: str) -> None:
    kernel = SimulatedKernel(ring_bytes=1024)
    kernel.poke(field, value)
    with pytest.raises(RingError, match=complaint):
        Ring(memoryview(kernel.memory))


def test_memory_shorter_than_a_mailbox_is_refused() -> None:
    with pytest.raises(WireError, match="Mailbox takes 128 bytes, not 64"):
        Ring(memoryview(bytearray(64)))


COMMAND = int(Operation.COMMAND)
TASK_MANAGEMENT = int(Operation.TASK_MANAGEMENT)
LENGTH = EntryHeader.length_and_operation
ENTRIES: dict[str, tuple[list[Change], str]] = {
    "head-past-ring": ([(Mailbox.head, 1024, 0)], "head 1024 is no place"),
    "head-misaligned": ([(Mailbox.head, 6, 0)], "head 6 is no place"),
    "length-0": ([(LENGTH, COMMAND, ENTRY)], "entry at 0 is 0 bytes long, where 128 are left"),
    "length-past-head": ([(LENGTH, 136 | COMMAND, ENTRY)], "entry at 0 is 136 bytes long, where 128 are left"),
    "length-huge": ([(LENGTH, 0xFFFFFFF8 | COMMAND, ENTRY)], "entry at 0 is 4294967288 bytes long"),
    "command-short": ([(LENGTH, 64 | COMMAND, ENTRY)], "command entry of 64 bytes, less than 112"),
    "too-many-vectors": ([(Request.vectors, 6, ENTRY)], r"command 1: cdb at 240 is not between 272 and 256"),
    "vectors-huge": ([(Request.vectors, 0xFFFFFFFF, ENTRY)], "command 1: cdb at 240 is not between"),
    "bidirectional-huge": ([(Request.bidirectional_vectors, 0xFFFFFFFF, ENTRY)], "cdb at 240 is not between"),
    "protection-huge": ([(Request.protection_vectors, 0xFFFFFFFF, ENTRY)], "cdb at 240 is not between"),
    "cdb-before-entry": ([(Request.cdb_at, 0, ENTRY)], "command 1: cdb at 0 is not between 192 and 256"),
    "cdb-past-entry": ([(Request.cdb_at, 256, ENTRY)], "command 1: cdb at 256 is not between 192 and 256"),
    "cdb-huge": ([(Request.cdb_at, HUGE, ENTRY)], "is not between 192 and 256"),
    "cdb-cut": ([(Request.cdb_at, 252, ENTRY)], "command 1: cdb from 252 to 258 is past the entry's end"),
    "data-in-ring": ([(IoVector.at, 128, VECTOR)], r"data from 128 to 640 is outside of the data area \(1152 to"),
    "data-past-memory": ([(IoVector.at, 33_900, VECTOR)], "data from 33900 to 34412 is outside of the data area"),
    "data-huge": ([(IoVector.length, HUGE, VECTOR)], "is outside of the data area"),
    "task-management-short": ([(LENGTH, 24 | TASK_MANAGEMENT, ENTRY)], "entry of 24 bytes, less than 32"),
    "task-management-cut": (
        [(LENGTH, 40 | TASK_MANAGEMENT, ENTRY), (TaskManagement.commands, 5, ENTRY)],
        "task management entry of 40 bytes with 5 commands",
    ),
}


@pytest.mark.parametrize(("changes", "complaint"), ENTRIES.values(), ids=ENTRIES)
def test_an_entry_that_makes_no_sense_is_refused_again_and_again(changes: list[Change], complaint: str) -> None:
    """S3: all lengths are checked before use; and a ring that was refused is not gone on with."""
    kernel = one_command()
    for field, value, at in changes:
        kernel.poke(field, value, at)
    ring = Ring(memoryview(kernel.memory))
    for _ in range(2):
        with pytest.raises(RingError, match=complaint):
            ring.take()
    assert not ring.publish()


def test_a_variable_length_cdb_that_ends_before_its_length_is_refused() -> None:
    kernel = SimulatedKernel(ring_bytes=1024)
    kernel.command(bytes([0x7F, *bytes(6), 24, *bytes(24)]))
    kernel.poke(Request.cdb_at, ENTRY + 112 + 24, ENTRY)
    kernel.memory[ENTRY + 112 + 24] = 0x7F
    ring = Ring(memoryview(kernel.memory))
    kernel.poke(Request.cdb_at, ENTRY + 112 + 28, ENTRY)
    kernel.memory[ENTRY + 112 + 28] = 0x7F
    with pytest.raises(RingError, match="is past the entry's end"):
        ring.take()


def test_an_identifier_that_is_in_use_is_refused() -> None:
    """Two commands of one number could not be told apart when they end."""
    kernel = one_command()
    ring = Ring(memoryview(kernel.memory))
    ring.take()
    second_at = kernel.entry_at(kernel.head)
    kernel.command(WRITE_10, bytes(512))
    kernel.poke(EntryHeader.command_id, 1, second_at)
    with pytest.raises(RingError, match="command 1 runs already"):
        ring.take()


@given(
    changes=st.lists(st.tuples(st.integers(0, 1151), st.binary(min_size=1, max_size=8)), max_size=6),
    step=st.sampled_from([list, reversed]),
)
@settings(max_examples=400, deadline=None)
def test_whatever_stands_in_the_ring_no_other_error_comes(
    changes: list[tuple[int, bytes]], step: Callable[[list[RingCommand]], list[RingCommand]]
) -> None:
    """S3: random bytes over mailbox and entries, before the ring is opened and while it runs."""
    kernel = SimulatedKernel(ring_bytes=1024)
    for _ in range(4):
        kernel.command(WRITE_10, bytes(100))
    half = len(changes) // 2
    try:
        _overwrite(kernel, changes[:half])
        ring = Ring(memoryview(kernel.memory))
        _overwrite(kernel, changes[half:])
        taken = [entry for entry in ring.take() if isinstance(entry, RingCommand)]
    except RingError:
        return
    size = len(kernel.memory)
    for command in step(taken):
        ring.complete(command, GOOD, data_in=bytes(command.span_bytes))
    ring.publish()
    assert len(kernel.memory) == size


def _overwrite(kernel: SimulatedKernel, changes: list[tuple[int, bytes]]) -> None:
    for at, raw in changes:
        kernel.memory[at : at + len(raw)] = raw
