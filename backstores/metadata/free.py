"""Free extents of an ALU, and how partitions are cut out of them (R8).

Free space is not stored: it is the data area minus what partitions and bitmaps take, so that the two
can't contradict each other after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backstores.errors import UsageError
from backstores.metadata import records
from backstores.metadata.layout import ALLOCATION_UNIT
from backstores.objects import AnyObject, Extent


def free_extents(data: Extent, objects: Iterable[AnyObject], withheld: Iterable[Extent] = ()) -> tuple[Extent, ...]:
    """Give the runs of the data area that no partition takes, in order; overlapping partitions do no harm.

    ``withheld`` is room of partitions that were lost, which may hold what somebody will want to save.
    """
    free: list[Extent] = []
    at = data.start_bytes
    for used in sorted([*(extent for extent, _ in records.extents(objects)), *withheld]):
        end = min(used.start_bytes, data.end_bytes)
        if end > at:
            free.append(Extent(at, end - at))
        at = max(at, used.end_bytes)
    if at < data.end_bytes:
        free.append(Extent(at, data.end_bytes - at))
    return tuple(free)


def allocate(free: Sequence[Extent], length_bytes: int) -> list[Extent]:
    """Take room out of free extents: the first that holds all of it, else pieces from the first on.

    The length is rounded up to whole units of 1 MiB.

    Raises:
        UsageError: there is not so much.
    """
    wanted = -(-length_bytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
    if wanted <= 0:
        raise UsageError(f"{length_bytes} bytes are no size: it must be above zero")
    for extent in free:
        if extent.length_bytes >= wanted:
            return [Extent(extent.start_bytes, wanted)]
    available = sum(extent.length_bytes for extent in free)
    if available < wanted:
        raise UsageError(f"{wanted} bytes are needed, {available} are free: add an alu, or ask for less")
    taken: list[Extent] = []
    for extent in free:
        piece = Extent(extent.start_bytes, min(extent.length_bytes, wanted))
        wanted -= piece.length_bytes
        taken.append(piece)
        if not wanted:
            break
    return taken
