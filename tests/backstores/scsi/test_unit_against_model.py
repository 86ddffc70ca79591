"""A unit against a byte array: writes of all kinds, reads, and restarts with the store, in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backstores.device import MemoryDevice
from backstores.scsi import transfers as t
from backstores.scsi.cdb import GetLbaStatus, ModeSelect6, Unmap
from backstores.scsi.mode_commands import Header6
from backstores.scsi.modes import CachingPage, ControlPage
from backstores.scsi.provisioning import LbaStatusDescriptor, LbaStatusHeader, UnmapDescriptor, UnmapHeader
from backstores.scsi.sense import Condition
from backstores.scsi.store import MemoryStore
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.scsi import BLOCK, WWN, Host, condition

BLOCKS = 24
lbas = st.integers(0, BLOCKS)
lengths = st.integers(0, 6)
fills = st.integers(0, 255)


class UnitAgainstModel(RuleBasedStateMachine):
    """Every command does to the unit what its model does to a byte array, or is refused and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.device = MemoryDevice(BLOCKS)
        self.model = bytearray(BLOCKS * BLOCK)
        self.protected = False
        self.restart()

    def send(self, cdb: bytes, data: bytes = b"", *, lba: int = 0, blocks: int = 0, writes: bool = True) -> bool:
        """Send a command; whether it was carried out. What stops it is foreseen."""
        foreseen = None
        if writes and self.protected:
            foreseen = Condition.WRITE_PROTECTED
        elif lba + blocks > BLOCKS:
            foreseen = Condition.LBA_OUT_OF_RANGE
        response = self.host.send(cdb, data)
        self.data = bytes(response.data_in)
        assert condition(response) is foreseen
        return foreseen is None

    def put(self, lba: int, data: bytes) -> None:
        """Write to the model."""
        self.model[lba * BLOCK : lba * BLOCK + len(data)] = data

    def get(self, lba: int, blocks: int) -> bytes:
        """Read from the model."""
        return bytes(self.model[lba * BLOCK : (lba + blocks) * BLOCK])

    @rule()
    def restart(self) -> None:
        """Start again with the same device and store."""
        self.host = Host.at(LogicalUnit(self.device, Identity(WWN), self.store))

    @rule(lba=lbas, blocks=lengths, fill=fills, wire=st.sampled_from([t.Write10, t.Write16, t.WriteVerify12]))
    def write(self, lba: int, blocks: int, fill: int, wire: type[t.Write10]) -> None:
        """WRITE and WRITE AND VERIFY."""
        data = bytes([fill]) * blocks * BLOCK
        if self.send(wire.build(lba=lba, blocks=blocks), data, lba=lba, blocks=blocks):
            self.put(lba, data)

    @rule(lba=lbas, blocks=lengths, wire=st.sampled_from([t.Read10, t.Read12, t.Read16]))
    def read(self, lba: int, blocks: int, wire: type[t.Read10]) -> None:
        """READ."""
        if self.send(wire.build(lba=lba, blocks=blocks), lba=lba, blocks=blocks, writes=False):
            assert self.data == self.get(lba, blocks)

    @rule(first=st.tuples(lbas, lengths), second=st.tuples(lbas, lengths))
    def unmap(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        """UNMAP of two ranges: all or nothing."""
        body = b"".join(UnmapDescriptor.build(lba=lba, blocks=blocks) for lba, blocks in (first, second))
        data = UnmapHeader.build(data_length=6 + len(body), descriptors_length=len(body)) + body
        lba, blocks = max((first, second), key=sum)
        if self.send(Unmap.build(parameter_bytes=len(data)), data, lba=lba, blocks=blocks):
            for lba, blocks in (first, second):
                self.put(lba, bytes(blocks * BLOCK))

    @rule(lba=lbas, blocks=st.integers(1, 6), fill=fills, unmap=st.booleans())
    def write_same(self, lba: int, blocks: int, fill: int, unmap: bool) -> None:
        """WRITE SAME, of zeros now and then."""
        pattern = bytes([fill if fill > 100 else 0]) * BLOCK
        cdb = t.WriteSame16.build(lba=lba, blocks=blocks, unmap=unmap)
        if self.send(cdb, pattern, lba=lba, blocks=blocks):
            self.put(lba, pattern * blocks)

    @rule(lba=st.integers(0, BLOCKS - 3), blocks=st.integers(1, 3), fill=fills, hit=st.booleans())
    def compare_and_write(self, lba: int, blocks: int, fill: int, hit: bool) -> None:
        """COMPARE AND WRITE, with what is there and with what is not."""
        there = bytearray(self.get(lba, blocks))
        there[-1] ^= not hit
        data = bytes([fill]) * blocks * BLOCK
        response = self.host.send(t.CompareAndWrite.build(lba=lba, blocks=blocks), bytes(there) + data)
        if self.protected:
            assert condition(response) is Condition.WRITE_PROTECTED
        elif hit:
            assert condition(response) is None
            self.put(lba, data)
        else:
            assert condition(response) is Condition.MISCOMPARE_DURING_VERIFY

    @rule(lba=lbas, blocks=lengths, fill=fills)
    def orwrite(self, lba: int, blocks: int, fill: int) -> None:
        """ORWRITE."""
        data = bytes([fill]) * blocks * BLOCK
        if self.send(t.Orwrite.build(lba=lba, blocks=blocks), data, lba=lba, blocks=blocks):
            self.put(lba, bytes(old | fill for old in self.get(lba, blocks)))

    @rule(write_cache=st.booleans(), protect=st.booleans())
    def change_saved_modes(self, write_cache: bool, protect: bool) -> None:
        """MODE SELECT with SP: outlives a restart."""
        pages = CachingPage.build(write_cache=write_cache) + ControlPage.build(write_protect=protect)
        data = Header6.build() + pages
        self.host.good(ModeSelect6.build(page_format=1, save=1, parameter_bytes=len(data)), data)
        self.protected = protect

    @rule(lba=st.integers(0, BLOCKS - 1))
    def status(self, lba: int) -> None:
        """GET LBA STATUS: what is told to be unmapped reads as zeros."""
        data = self.host.good(GetLbaStatus.build(lba=lba, allocation_bytes=24))
        run = LbaStatusDescriptor.parse(data, LbaStatusHeader.SIZE)
        assert run.lba == lba
        if run.deallocated:
            assert not any(self.get(run.lba, run.blocks))

    @invariant()
    def device_and_model_agree(self) -> None:
        """The bytes are the same."""
        assert self.device.content == self.model


TestUnitAgainstModel = UnitAgainstModel.TestCase
TestUnitAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
