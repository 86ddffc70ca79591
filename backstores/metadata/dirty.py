"""Which regions of a running mirror are dirty: the decisions behind rule D2.

The rule: a region's bit is durable on the legs before a write to it is begun, and it is cleared only
after the legs have flushed what was written. The way of a write:

    pin(first, last)                  from now on its regions are not cleared
    mark(first, last)                 True: the bits are durable, write at once
    batch = next_batch(now_ns)        else: one batch carries all marks asked for so far ...
    (write batch to the legs, flush)
    written(batch)                    ... and all that waited for them may go on
    (write the data)
    unpin(first, last)

A hot path that writes without waiting needs no pin: ``if state[region]: state[region] = ACTIVE``.

Clearing: ``age`` runs now and then and names regions that nothing has written since it ran before;
flush all legs; ``clean`` those that are still untouched; the next batch carries it. A region that an
unclean stop left dirty is *unsynced*: it is not cleared before ``copied`` says that its legs agree.

Of all this only ``state`` may be touched from outside.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from backstores.metadata.bitmap import Geometry, Loaded, Place, Stamp, encode
from backstores.metadata.sector import following, stamped
from backstores.metadata.steps import Write


class RegionState(enum.IntEnum):
    """What ``state`` holds for a region. Other than CLEAN means: the bit is durable on every leg."""

    CLEAN = 0
    IDLE = 1  # dirty, and not written since ``age`` ran last
    ACTIVE = 2  # dirty, and written since


CLEAN, IDLE, ACTIVE = RegionState


@dataclass(frozen=True, slots=True)
class Batch:
    """One write of the bitmap: all bits, and the regions that become dirty by it."""

    geometry: Geometry
    stamp: Stamp
    bits: bytes
    marks: frozenset[int]

    def writes(self, place: Place) -> list[Write]:
        """Say what is written to a leg; a flush must follow."""
        return encode(self.bits, self.geometry, place, self.stamp)


class DirtyRegions:
    """The dirty regions of one mirror. The first batch is due at once: it makes all legs' bitmaps alike."""

    def __init__(self, geometry: Geometry, loaded: Loaded) -> None:
        self.geometry = geometry
        self.state = bytearray(geometry.regions)
        self.unsynced = set(loaded.dirty)
        self._stamp = loaded.stamp
        self._bits = bytearray(-(-geometry.regions // 8))
        self._pins = [0] * geometry.regions
        self._wanted = set(loaded.dirty)  # marks that no batch carries yet
        self._due = True  # the legs hold something else than they should
        self._in_flight: Batch | None = None

    def mark(self, first: int, last: int) -> bool:
        """Ask that regions be dirty. True: they are, durably; else wait for a batch to be written, and ask again."""
        ready = True
        for region in range(first, last + 1):
            if self.state[region]:
                self.state[region] = ACTIVE
            else:
                ready = False
                self._want(region)
        return ready

    def pin(self, first: int, last: int) -> None:
        """Keep regions from being cleared while a write to them waits or runs."""
        for region in range(first, last + 1):
            self._pins[region] += 1

    def unpin(self, first: int, last: int) -> None:
        """Undo one ``pin``; the regions count as just written."""
        for region in range(first, last + 1):
            assert self._pins[region] > 0, f"region {region} is not pinned"
            self._pins[region] -= 1
            if self.state[region]:
                self.state[region] = ACTIVE

    def next_batch(self, now_ns: int) -> Batch | None:
        """Give the next write of the bitmap, if one is due and none is on its way."""
        if self._in_flight is not None or not (self._wanted or self._due):
            return None
        for region in self._wanted:
            self._bits[region // 8] |= 1 << region % 8
        self._stamp = Stamp(following(self._stamp.generation), stamped(self._stamp.time_ns, now_ns))
        self._in_flight = Batch(self.geometry, self._stamp, bytes(self._bits), frozenset(self._wanted))
        self._wanted.clear()
        self._due = False
        return self._in_flight

    def written(self, batch: Batch) -> None:
        """Note that a batch is durable on every leg: writes to its marks may begin."""
        self._end(batch)
        for region in batch.marks:
            self.state[region] = ACTIVE

    def failed(self, batch: Batch) -> None:
        """Note that a batch did not reach every leg: its marks stay wanted, and another batch is due."""
        self._end(batch)
        self._wanted |= batch.marks
        self._due = True

    def copied(self, regions: Iterable[int]) -> None:
        """Note that all legs agree in these regions again; they may be cleared like others."""
        self.unsynced.difference_update(regions)

    def distrust(self) -> None:
        """Take all dirty regions as unsynced: a flush has failed, so what they hold may differ from leg to leg."""
        self.unsynced.update(region for region, state in enumerate(self.state) if state)

    def age(self) -> tuple[int, ...]:
        """Name the dirty regions that were not written since the last call, and let the others grow older.

        Flush every leg after this, then give the answer to ``clean``.
        """
        candidates = [
            region
            for region, state in enumerate(self.state)
            if state == IDLE and not self._pins[region] and region not in self.unsynced
        ]
        self.state[:] = self.state.replace(bytes([ACTIVE]), bytes([IDLE]))
        return tuple(candidates)

    def clean(self, candidates: Iterable[int]) -> int:
        """Clear the candidates that were not touched meanwhile; say how many. The next batch tells the legs."""
        cleared = 0
        for region in candidates:
            if self.state[region] == IDLE and not self._pins[region] and region not in self.unsynced:
                self.state[region] = CLEAN
                self._bits[region // 8] &= ~(1 << region % 8)
                cleared += 1
        self._due = self._due or cleared > 0
        return cleared

    def _want(self, region: int) -> None:
        if self._in_flight is None or region not in self._in_flight.marks:
            self._wanted.add(region)

    def _end(self, batch: Batch) -> None:
        assert batch is self._in_flight, "a batch ended that was not on its way"
        self._in_flight = None
