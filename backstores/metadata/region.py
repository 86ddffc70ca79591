"""The object region: the objects on one ALU, as a base and a log of changes, in two regions that take turns (R3).

    header | body: all objects | change: header | put, drop | change: header | put, drop | zeros | ...

Invariants. Each part begins on a unit of its own. A change is appended: its body, and zeros where the next
header and the beginning of its body will lie, are durable before its header is written (M3). So where a header
can lie there are zeros or a whole sector, and a whole header has a whole body; whatever else is found is damage,
never a crash. When the log is full, the other region gets a new base: body and zeros first, then the header, which
makes it the live one, for its generation is the highest. The live region is never overwritten but by appending.

A base that all but fills its region has no log: then each commit writes a new one.

So every crash leaves the old state or the new one (M6), and what a commit writes depends on how much it changes
and not on how many objects there are; the new base now and then is paid for by the changes that filled the log.

After a commit that failed, its header may be on the disk or not. ``Commit.undo`` takes it back for certain, and
comes before anything else is written: zeros in the place of a change's header, or the header of a base of
generation zero, which no other is older than.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from backstores.errors import UsageError
from backstores.metadata import records
from backstores.metadata.findings import Finding
from backstores.metadata.mdr import Directory
from backstores.metadata.sector import Sector, crc32c, following, seal_on, stamped
from backstores.metadata.steps import IO_UNIT, ZERO_UNIT, Flush, Step, Write, padded, units
from backstores.objects import AnyObject, Extent
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn

BODY_OFFSET: Final = IO_UNIT  # from a header
RUNWAY_BYTES: Final = 64 << 10  # zeros behind a base: in a sparse file they are room that nobody else can take
END_BYTES: Final = 2 * IO_UNIT  # zeros that end a log: a place for a header, and for the beginning of a body


class RegionSector(Sector, size=512, order="little"):
    """The header of an object region."""

    VERSIONS = frozenset({1, 2})  # in version 1 nothing followed the body

    magic = Bytes(byte=0, length=8, value=b"TGREGION")
    body_bytes = Bits(byte=64, width=64, doc="length of the body, which starts 4096 bytes behind this sector")
    body_crc = Bits(byte=72, width=32, doc="CRC32C of the body")
    objects = Bits(byte=76, width=32, doc="how many objects the body holds")


class ChangeSector(Sector, size=512, order="little"):
    """The header of a change in the log of an object region."""

    magic = Bytes(byte=0, length=8, value=b"TGCHANGE")
    body_bytes = Bits(byte=64, width=64, doc="length of the body, which starts 4096 bytes behind this sector")
    body_crc = Bits(byte=72, width=32, doc="CRC32C of the body")
    objects = Bits(byte=76, width=32, doc="how many objects there are after the change")


@dataclass(frozen=True, slots=True)
class RegionState:
    """What an ALU's objects are.

    ``live`` is the number of the live region, ``end`` the byte in it where the next change goes; None if the
    next commit must write a new base: something in the regions is damaged, or they are of version 1.
    """

    objects: tuple[AnyObject, ...]
    generation: int
    time_ns: int
    epoch: int
    live: int
    end: int | None
    sound: bool = field(default=False, compare=False)  # nothing is wrong with the objects, by themselves or together


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change of objects leaves as it is, what goes (or is replaced), and what comes (or replaces)."""

    same: tuple[AnyObject, ...] = ()
    gone: tuple[AnyObject, ...] = ()
    come: tuple[AnyObject, ...] = ()

    @classmethod
    def of(cls, before: Mapping[Wwn, AnyObject], after: Sequence[AnyObject]) -> Difference:
        """Compare by identity first: of thousands of objects a change leaves all but a few as they are."""
        known, wanted = set(map(id, before.values())), set(map(id, after))
        gone = {wwn: item for wwn, item in before.items() if id(item) not in wanted}
        again = {item.wwn for item in after if id(item) not in known and gone.get(item.wwn) == item}
        return cls(
            tuple(item for item in after if id(item) in known or item.wwn in again),
            tuple(item for wwn, item in gone.items() if wwn not in again),
            tuple(item for item in after if id(item) not in known and item.wwn not in again),
        )

    @property
    def dropped(self) -> list[Wwn]:
        """Name what goes for good."""
        names = {item.wwn for item in self.come}
        return [item.wwn for item in self.gone if item.wwn not in names]


@dataclass(frozen=True, slots=True)
class Commit:
    """How a change gets onto the ALU: ``after`` holds once all ``steps`` have ended well."""

    steps: tuple[Step, ...]
    undo: tuple[Step, ...]
    after: RegionState
    difference: Difference = Difference()


def capacity(directory: Directory) -> int:
    """How many bytes of body a region has room for. A base that leaves none for zeros behind it has no log."""
    return directory.region_bytes - BODY_OFFSET


def applied(objects: Mapping[Wwn, AnyObject], put: Iterable[AnyObject], drop: Iterable[Wwn]) -> dict[Wwn, AnyObject]:
    """Change a set of objects. What is new comes behind what was there; what is changed keeps its place."""
    gone = set(drop)
    after = {wwn: item for wwn, item in objects.items() if wwn not in gone}
    after.update((item.wwn, item) for item in put)
    return after


def commit(
    previous: RegionState, objects: Sequence[AnyObject], directory: Directory, data: Extent, now_ns: int, epoch: int
) -> Commit:
    """Say how ``objects`` become the new state, by as little as the log allows.

    Raises:
        UsageError: they don't fit, or contradict each other.
    """
    before = {item.wwn: item for item in previous.objects}
    difference = Difference.of(before, objects)
    wrong = _wrong(previous, objects, difference, directory.alu, data)
    if wrong:
        raise UsageError(f"alu {directory.alu} can't store these objects: {wrong[0]}")
    if not difference.come and not difference.gone:
        return Commit((), (), replace(previous, sound=True))
    after = replace(
        previous,
        objects=tuple(applied(before, difference.come, difference.dropped).values()),
        generation=following(previous.generation),
        time_ns=stamped(previous.time_ns, now_ns),
        epoch=epoch,
        sound=True,
    )
    body = records.encode_change(difference.come, difference.dropped)
    made = _appended(previous.end, body, after, directory) or base(replace(after, live=1 - previous.live), directory)
    return replace(made, difference=difference)


def _wrong(
    previous: RegionState, objects: Sequence[AnyObject], difference: Difference, alu: Wwn, data: Extent
) -> tuple[Finding, ...]:
    """Name what is wrong with objects; where nothing was before, only what has changed is looked at."""
    if previous.sound:
        return records.check_new(difference.come, difference.same, alu, data)
    return records.check(objects, alu, data)


def renewed(previous: RegionState, directory: Directory, now_ns: int, epoch: int) -> Commit:
    """Say how the same objects are written whole into the region that is not live, whatever lies there."""
    generation, time_ns = following(previous.generation), stamped(previous.time_ns, now_ns)
    live = 1 - previous.live
    return base(replace(previous, generation=generation, time_ns=time_ns, epoch=epoch, live=live), directory)


def base(state: RegionState, directory: Directory) -> Commit:
    """Say how a state is written whole, into the region that it names."""
    _check_room(state.objects, directory)
    body = records.encode(state.objects)
    end = BODY_OFFSET + units(len(body))
    after = replace(state, end=end)
    address = directory.regions[state.live]
    void = _header(RegionSector, address, b"", directory.alu, replace(after, objects=(), generation=0))
    undo = (Write(address, padded(void)), Flush())
    behind = padded(body) + bytes(min(RUNWAY_BYTES, directory.region_bytes - end))
    return Commit(_steps(address, behind, _header(RegionSector, address, body, directory.alu, after)), undo, after)


def _appended(at: int | None, body: bytes, after: RegionState, directory: Directory) -> Commit | None:
    """Say how a change is appended to the log, if there is one, and room at its end.

    Then a base of all objects would have room, too: each of them is in a body of this region.
    """
    if at is None or (end := at + BODY_OFFSET + units(len(body))) + END_BYTES > directory.region_bytes:
        return None
    address = directory.regions[after.live] + at
    undo = (Write(address, ZERO_UNIT), Flush())
    behind = padded(body) + bytes(END_BYTES)
    header = _header(ChangeSector, address, body, directory.alu, after)
    return Commit(_steps(address, behind, header), undo, replace(after, end=end))


def _steps(address: int, body: bytes, header: bytes) -> tuple[Step, ...]:
    return (Write(address + BODY_OFFSET, body), Flush(), Write(address, padded(header)), Flush())


def _header(kind: type[RegionSector | ChangeSector], address: int, body: bytes, alu: Wwn, after: RegionState) -> bytes:
    return seal_on(
        alu,
        address,
        kind,
        after,
        body_bytes=len(body),
        body_crc=crc32c(body),
        objects=len(after.objects),
    )


def _check_room(objects: Sequence[AnyObject], directory: Directory) -> None:
    """Refuse what no region could hold as a base, before the log takes it bit by bit."""
    taken = len(records.encode(objects))
    if taken > capacity(directory):
        raise UsageError(
            f"the {len(objects)} objects of alu {directory.alu} take {taken} bytes, its object region has room for"
            f" {capacity(directory)}: use another alu, or delete volumes"
        )
