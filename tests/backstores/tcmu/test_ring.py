"""The ring against a simulated kernel: whatever order commands come and end in, each gets its own outcome."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backstores.tcmu.formats import Flag, Function
from backstores.tcmu.ring import GROUP_CDB_BYTES, Ring, RingCommand, RingTaskManagement
from tests.support.tcmu_kernel import ALL_FLAGS, GOOD, STALE, Outcome, SimulatedKernel

CHECK_CONDITION = 2
SENSE = bytes([0x70, 0, 5])
READ_6 = bytes([0x08, 0, 0, 0, 1, 0])
INQUIRY = bytes([0x12, 0, 0, 0, 255, 0])


def ring_of(kernel: SimulatedKernel) -> Ring:
    return Ring(memoryview(kernel.memory))


def only(ring: Ring) -> RingCommand:
    """Take the one command that is there."""
    (command,) = ring.take()
    assert isinstance(command, RingCommand)
    return command


@st.composite
def cdbs(draw: st.DrawFn) -> bytes:
    """CDBs of all lengths that the operation code allows; of a variable-length one, byte 7 says it."""
    opcode = draw(st.integers(0, 255))
    if opcode == 0x7F:
        more = draw(st.integers(0, 24))
        return bytes([opcode, 0, 0, 0, 0, 0, 0, more]) + draw(st.binary(min_size=more, max_size=more))
    length = GROUP_CDB_BYTES[opcode >> 5] - 1
    return bytes([opcode]) + draw(st.binary(min_size=length, max_size=length))


class RingMachine(RuleBasedStateMachine):
    """Commands are queued, taken in batches, ended in any order, and given back whenever."""

    def __init__(self) -> None:
        super().__init__()
        # No power of two, and no multiple of an entry: padding of every length comes up.
        self.kernel = SimulatedKernel(ring_bytes=1544, data_blocks=24, block_bytes=64, random=Random(1))
        self.ring = ring_of(self.kernel)
        self.queued: dict[int, tuple[bytes, bytes, int]] = {}  # by identifier: CDB, Data-Out, bytes to read
        self.taken: list[RingCommand] = []
        self.expected: dict[int, Outcome] = {}

    @rule(cdb=cdbs(), data=st.binary(min_size=1, max_size=640))
    def queue_a_write(self, cdb: bytes, data: bytes) -> None:
        if (number := self.kernel.command(cdb, data)) is not None:
            self.queued[number] = (cdb, data, 0)

    @rule(cdb=cdbs(), length=st.integers(0, 640))
    def queue_a_read(self, cdb: bytes, length: int) -> None:
        if (number := self.kernel.command(cdb, data_in_bytes=length)) is not None:
            self.queued[number] = (cdb, b"", length)

    @rule(function=st.sampled_from(Function), numbers=st.lists(st.integers(1, 20), max_size=5))
    def queue_task_management(self, function: Function, numbers: list[int]) -> None:
        self.kernel.task_management(function, numbers)

    @rule(limit=st.integers(1, 20))
    def take(self, limit: int) -> None:
        for entry in self.ring.take(limit=limit):
            if isinstance(entry, RingTaskManagement):
                assert set(entry.command_ids) <= {command.command_id for command in self.taken}
                continue
            cdb, data, length = self.queued.pop(entry.command_id)
            assert entry.cdb == cdb
            assert entry.span_bytes == max(len(data), length)
            if data:
                assert b"".join(entry.spans) == data
            self.taken.append(entry)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), written=st.binary(max_size=700), failed=st.booleans())
    def end_one(self, data: st.DataObject, written: bytes, failed: bool) -> None:
        command = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        reads = self.kernel.issued[command.command_id].reads
        status, sense = (CHECK_CONDITION, SENSE) if failed else (GOOD, b"")
        self.ring.complete(command, status, sense, written if reads else None)
        shown = (written[: command.span_bytes] or bytes(command.span_bytes)) if reads else b""
        self.expected[command.command_id] = Outcome(status, sense, shown)

    @rule()
    def give_back(self) -> None:
        if self.ring.publish():
            self.kernel.kick()
        assert not self.ring.publish()
        for number, outcome in self.expected.items():
            assert self.kernel.outcomes.pop(number) == outcome
        self.expected.clear()

    @invariant()
    def nothing_is_told_that_has_not_ended(self) -> None:
        assert self.kernel.outcomes.keys() <= self.expected.keys()

    def teardown(self) -> None:
        """Drain it: head meets tail, and every command has had its outcome."""
        self.take(1000)
        for command in self.taken:
            self.ring.complete(command, GOOD)
        self.ring.publish()
        self.kernel.kick()
        assert self.ring.idle
        assert self.kernel.drained


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_padding_at_the_end_is_passed_over_and_given_back() -> None:
    kernel = SimulatedKernel(ring_bytes=424)
    ring = ring_of(kernel)
    for _ in range(20):
        number = kernel.command(READ_6, data_in_bytes=8)
        assert number is not None
        ring.complete(only(ring), GOOD, data_in=bytes(8))
        assert ring.publish()
        kernel.kick()
        assert kernel.outcomes[number].status == GOOD
    assert kernel.pads > 3
    assert kernel.drained


def test_task_management_alone_is_given_back() -> None:
    """Otherwise head would never meet tail, and a clean stop would wait for ever."""
    kernel = SimulatedKernel()
    ring = ring_of(kernel)
    kernel.task_management(Function.ABORT_TASK, [5])
    assert ring.take() == [RingTaskManagement(Function.ABORT_TASK, ())]
    assert ring.publish()
    assert ring.idle


def test_task_management_names_the_commands_that_still_run() -> None:
    kernel = SimulatedKernel()
    ring = ring_of(kernel)
    numbers = [kernel.command(READ_6, data_in_bytes=8) or 0 for _ in range(3)]
    second = ring.take()[1]
    assert isinstance(second, RingCommand)
    ring.complete(second, GOOD)
    kernel.task_management(Function.LOGICAL_UNIT_RESET, [*numbers, 99])
    assert ring.take() == [RingTaskManagement(Function.LOGICAL_UNIT_RESET, (numbers[0], numbers[2]))]


def test_an_unknown_operation_is_marked_and_passed_over() -> None:
    kernel = SimulatedKernel()
    ring = ring_of(kernel)
    kernel.unknown()
    number = kernel.command(READ_6, data_in_bytes=8)
    command = only(ring)
    assert command.command_id == number
    ring.complete(command, GOOD, data_in=bytes(8))
    ring.publish()
    kernel.kick()
    assert kernel.unknown_operations == 1
    assert kernel.drained


def test_a_bidirectional_command_has_data_both_ways() -> None:
    kernel = SimulatedKernel(random=Random(3))
    ring = ring_of(kernel)
    number = kernel.command(bytes([0x53]) + bytes(9), b"out" * 500, 1400, bidirectional=True)
    assert number is not None
    (command,) = ring.take(lambda opcode, cdb_at, spans: True)  # it is not even tried at once
    assert isinstance(command, RingCommand)
    assert b"".join(command.spans) == b"out" * 500
    assert len(command.data_in_spans) > 1
    ring.complete(command, GOOD, data_in=b"in" * 700)
    ring.publish()
    kernel.kick()
    assert kernel.outcomes[number].data_in == b"in" * 700


@pytest.mark.parametrize("flags", [ALL_FLAGS, Flag.OUT_OF_ORDER], ids=["short-reads-known", "not-known"])
@pytest.mark.parametrize("length", [0, 96, 255], ids=["nothing", "less", "all"])
def test_a_read_shows_nothing_of_other_commands(flags: int, length: int) -> None:
    """R15: the data area still holds what others have transferred."""
    kernel = SimulatedKernel(flags=flags, block_bytes=64, random=Random(2))
    ring = ring_of(kernel)
    number = kernel.command(INQUIRY, data_in_bytes=255)
    assert number is not None
    ring.complete(only(ring), GOOD, data_in=bytes([1]) * length)
    ring.publish()
    kernel.kick()
    shown = kernel.outcomes[number].data_in
    assert shown.rstrip(b"\0") == bytes([1]) * length
    assert STALE not in shown


def test_what_was_carried_out_at_once_is_given_back_without_being_seen() -> None:
    kernel = SimulatedKernel()
    ring = ring_of(kernel)
    numbers = [kernel.command(READ_6, data_in_bytes=8) for _ in range(4)]
    seen: list[int] = []

    def odd_ones(opcode: int, cdb_at: int, spans: object) -> bool:
        seen.append(opcode)
        return len(seen) % 2 == 1

    entries = ring.take(odd_ones)
    assert seen == [0x08] * 4
    ring.publish()
    kernel.kick()
    # The second runs; what ended after it stands in the slots before it, as far as there are any.
    assert [entry.command_id for entry in entries if isinstance(entry, RingCommand)] == [numbers[1], numbers[3]]
    assert sorted(kernel.outcomes) == [numbers[0], numbers[2]]


def test_a_limit_leaves_the_rest_for_the_next_turn() -> None:
    kernel = SimulatedKernel()
    ring = ring_of(kernel)
    for _ in range(3):
        kernel.command(READ_6, data_in_bytes=8)
    assert len(ring.take(limit=2)) == 2
    assert ring.pending
    assert len(ring.take(limit=2)) == 1
    assert not ring.pending


def test_a_ring_with_commands_in_it_is_gone_on_with() -> None:
    """A handler that stopped cleanly leaves what came after it for the next one."""
    kernel = SimulatedKernel()
    first = ring_of(kernel)
    kernel.command(READ_6, data_in_bytes=8)
    first.complete(only(first), GOOD, data_in=bytes(8))
    first.publish()
    kernel.kick()
    number = kernel.command(READ_6, data_in_bytes=8)
    assert ring_of(kernel).pending
    assert only(ring_of(kernel)).command_id == number
