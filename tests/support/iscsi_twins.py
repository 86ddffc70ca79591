"""In-memory twins of what the iSCSI target stands on: a nexus over one device, and an appliance's accounts."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field

from backstores.device import BlockDevice, MemoryDevice
from backstores.iscsi.access import Account, Portal, Target
from backstores.scsi.model import Command, Function, FunctionResponse, Nexus, Response, Status
from backstores.wire import Bits, Wire

TARGET = "iqn.2024-01.example:disks"
INITIATOR = "iqn.2024-01.example:host"

INVALID_OPCODE = Response(Status.CHECK_CONDITION, bytes.fromhex("700005000000000a00000000200000000000"))
OUT_OF_RANGE = Response(Status.CHECK_CONDITION, bytes.fromhex("700005000000000a00000000210000000000"))
UNKNOWN_LUN = Response(Status.CHECK_CONDITION, bytes.fromhex("700005000000000a00000000250000000000"))


class Cdb10(Wire, size=10):
    """READ(10), WRITE(10) and their like."""

    opcode = Bits(byte=0, width=8)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class Cdb16(Wire, size=16):
    """READ(16), WRITE(16) and their like."""

    opcode = Bits(byte=0, width=8)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


RANGES: dict[int, type[Cdb10] | type[Cdb16]] = {0x28: Cdb10, 0x2A: Cdb10, 0x88: Cdb16, 0x8A: Cdb16}
WRITES = (0x2A, 0x8A)


class MemoryNexus:
    """A nexus with one LUN, 0, on a device; just the commands that initiators need to find and use it.

    ``gate``: an event that commands wait for, where a test wants them to be running.
    """

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.fast_read: dict[int, BlockDevice] = {0: device}
        self.fast_write: dict[int, BlockDevice] = {0: device}
        self.gate: asyncio.Event | None = None
        self.commands: list[Command] = []
        self.functions: list[tuple[Function, int, int]] = []
        self.aborted: set[int] = set()
        self.closed = 0
        self.answer = FunctionResponse.COMPLETE

    def data_out_bytes(self, lun: int, cdb: bytes) -> int:
        return RANGES[cdb[0]].parse(cdb).blocks * self.device.block_bytes if cdb[0] in WRITES else 0

    async def execute(self, lun: int, command: Command) -> Response | None:
        self.commands.append(command)
        if self.gate is not None:
            await self.gate.wait()
        if command.tag in self.aborted or self.closed:
            return None
        return self.respond(lun, command)

    def respond(self, lun: int, command: Command) -> Response:
        cdb = command.cdb
        if lun != 0 and cdb[0] not in (0x12, 0xA0):
            return UNKNOWN_LUN
        if cdb[0] in RANGES:
            return self._move(command)
        simple: dict[int, Callable[[], bytes]] = {
            0x00: bytes,
            0x12: lambda: self._inquiry(cdb, lun),
            0x1A: lambda: bytes([3, 0, 0, 0]),
            0x25: lambda: self._last_lba(4),
            0x35: bytes,
            0x9E: lambda: self._last_lba(8) + bytes(20),
            0xA0: lambda: (8).to_bytes(4, "big") + bytes(12),
        }
        return Response(data_in=simple[cdb[0]]()) if cdb[0] in simple else INVALID_OPCODE

    def _move(self, command: Command) -> Response:
        cdb = RANGES[command.cdb[0]].parse(command.cdb)
        size = self.device.block_bytes
        if cdb.lba + cdb.blocks > self.device.blocks:
            return OUT_OF_RANGE
        assert isinstance(self.device, MemoryDevice)
        immediate, self.device.immediate = self.device.immediate, True
        try:
            if command.cdb[0] in WRITES:
                blocks = min(cdb.blocks, len(command.data_out) // size)
                self.device.write_now(cdb.lba, blocks, command.data_out[: blocks * size])
                return Response()
            data = bytearray(cdb.blocks * size)
            self.device.read_now(cdb.lba, cdb.blocks, memoryview(data))
            return Response(data_in=memoryview(data))
        finally:
            self.device.immediate = immediate

    def _inquiry(self, cdb: bytes, lun: int) -> bytes:
        if cdb[1] & 1:
            return bytes([0, cdb[2], 0, 0])
        return bytes([0 if lun == 0 else 0x7F, 0, 6, 2, 31, 0, 0, 2]) + b"TIERGATETWIN            0001"

    def _last_lba(self, size: int) -> bytes:
        return (self.device.blocks - 1).to_bytes(size, "big") + self.device.block_bytes.to_bytes(4, "big")

    async def manage(self, function: Function, lun: int, tag: int) -> FunctionResponse:
        self.functions.append((function, lun, tag))
        self.aborted.update([tag] if function is Function.ABORT_TASK else [command.tag for command in self.commands])
        if self.gate is not None:
            self.gate.set()
        return self.answer

    def close(self) -> None:
        self.closed += 1
        if self.gate is not None:
            self.gate.set()


@dataclass
class MemoryAccess:
    """Accounts by initiator name or pattern, and the targets of each host."""

    device: BlockDevice = field(default_factory=lambda: MemoryDevice(2048))
    accounts: dict[str, Account] = field(default_factory=lambda: {INITIATOR: Account("host")})
    targets_of: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"host": (TARGET,)})
    portals: tuple[Portal, ...] = (Portal("127.0.0.1", 3260, 1),)
    nexuses: list[MemoryNexus] = field(default_factory=list)

    def account(self, initiator: str) -> Account | None:
        if initiator in self.accounts:
            return self.accounts[initiator]
        return next((a for pattern, a in self.accounts.items() if fnmatch.fnmatchcase(initiator, pattern)), None)

    def targets(self, account: Account) -> tuple[Target, ...]:
        return tuple(Target(name, self.portals) for name in self.targets_of.get(account.host, ()))

    def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int) -> Nexus:
        nexus = MemoryNexus(self.device)
        self.nexuses.append(nexus)
        return nexus
