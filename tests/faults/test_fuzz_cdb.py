"""Hostile CDBs and parameter lists: nothing but a status ever comes out of a unit (S3).

``tests.support.fuzzing`` says how often, and how to see a failure again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from backstores.device import MemoryDevice
from backstores.scsi.commands import TABLE
from backstores.scsi.direct import PLAIN_COMMANDS
from backstores.scsi.model import Attribute, Command, Function, Status
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.fuzzing import CDBS, Growth, first_seed, named
from tests.support.scsi import IQN, WWN, wait
from tests.support.scsi_disk import MemoryDisk

BLOCKS = 64
INTERESTING = (0, 1, 2, 4, 6, 8, 16, 24, 32, 63, 64, 65, 127, 128, 255)
HOSTILE_LUNS = (0, 0, 0, 0, 1 << 48, 0x4000 << 48, 0xC101 << 48, (1 << 64) - 1)


def hostile_cdb(chance: random.Random) -> bytes:
    """Make a CDB: of a known command mostly, with a few bytes of interest, seldom cut short or padded."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(33))
    known = chance.choice(list(TABLE.values()))
    cdb = bytearray(known.wire.SIZE)
    cdb[0] = known.opcode
    if known.action is not None:
        cdb[1] = known.action
    for _ in range(chance.randrange(6)):
        cdb[chance.randrange(len(cdb))] = chance.choice((*INTERESTING, chance.randrange(256)))
    cut = chance.randrange(len(cdb)) if chance.random() < 0.02 else 16
    return bytes(cdb).ljust(16, b"\0")[:cut] if chance.random() < 0.5 else bytes(cdb)[:cut]


def hostile_data(chance: random.Random, wanted: int) -> bytes:
    """Make data: as long as wanted mostly; small numbers here and there make parameter lists plausible."""
    length = wanted if chance.random() < 0.8 else chance.choice((0, 1, 7, 8, 23, 24, 512, 513))
    data = bytearray(min(length, 1 << 16))
    for _ in range(chance.randrange(8) if data else 0):
        data[chance.randrange(min(len(data), 48))] = chance.choice(INTERESTING)
    return bytes(data)


def make_nexuses(unit: LogicalUnit) -> list[TargetNexus]:
    """Let three initiator ports in; one of them may only read."""
    target = TargetDevice(IQN)
    return [
        target.open_nexus(f"iqn.x:{name},i,0x1", {0: Exposed(unit, read_only=name == "c")}) for name in ("a", "b", "c")
    ]


async def fuzz(chance: random.Random, unit: LogicalUnit) -> Counter[Status]:
    """Send hostile commands, with a task management function or a lost nexus now and then."""
    nexuses = make_nexuses(unit)
    seen: Counter[Status] = Counter()
    growth = Growth(CDBS)
    for number in range(CDBS):
        growth.after(number)
        nexus = chance.choice(nexuses)
        lun = chance.choice(HOSTILE_LUNS)
        cdb = hostile_cdb(chance)
        data = hostile_data(chance, nexus.data_out_bytes(lun, cdb))
        response = await nexus.execute(lun, Command(cdb, memoryview(data), chance.choice(list(Attribute)), number))
        assert response is not None
        assert (response.status is Status.CHECK_CONDITION) == bool(response.sense)
        seen[response.status] += 1
        if number % 97 == 0:
            await nexus.manage(chance.choice(list(Function)), lun, number)
        if number % 997 == 0:
            for open_nexus in nexuses:
                open_nexus.close()
            nexuses = make_nexuses(unit)
    growth.check()
    assert isinstance(unit.device, MemoryDevice)
    assert len(unit.device.content) == BLOCKS * 512
    assert len(unit.tasks) == 0
    return seen


UNITS: dict[str, Callable[[], LogicalUnit]] = {
    "volume": lambda: LogicalUnit(MemoryDevice(BLOCKS), Identity(WWN), removable=True),
    "direct-to-a-file": lambda: LogicalUnit(MemoryDevice(BLOCKS), Identity(WWN), commands=PLAIN_COMMANDS),
    "direct-to-a-disk": lambda: MemoryDisk(BLOCKS, most_bytes=8192).behind(WWN),
}


@pytest.mark.parametrize("make", UNITS.values(), ids=UNITS)
def test_no_input_gets_through(make: Callable[[], LogicalUnit]) -> None:
    """S3: whatever a host sends ends in a status; the fuzz reaches all of the ways to end."""
    seed = first_seed(0)
    with named(seed):
        seen = wait(fuzz(random.Random(seed), make()))
    assert sum(seen.values()) == CDBS
    assert {Status.GOOD, Status.CHECK_CONDITION} <= seen.keys()
