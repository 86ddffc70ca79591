"""A disk that remembers every write, and all the states in which a crash could leave it.

The model is that of the metadata rules: what was written before the last completed flush is there;
each write since may be there, may be missing, or may have reached the disk in part, sector by
sector, whatever the order. A sector of 512 bytes is old or new, never mixed (M1).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from backstores.errors import TiergateError
from tests.support.tally import CRASH_STATES

SECTOR = 512
SUBSETS_OF_A_WRITE = 8  # sectors up to which all subsets are tried
SAMPLES = 300  # subsets tried of a longer write, besides the regular ones
STATES_OF_A_MOMENT = 400  # combinations tried of all writes in flight at one moment

Image = dict[int, bytes]  # sector number to content; what is zero is not there


class StorageFailed(TiergateError):
    """What the disk answers where a test wants it to fail."""


@dataclass(frozen=True)
class Event:
    """A write, or (offset None) a flush that ended."""

    offset: int | None
    data: bytes = b""


@dataclass
class RecordingStorage:
    """The twin of an ALU in memory. ``fail_after`` writes and flushes, every further one fails."""

    size_bytes: int
    image: Image = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)  # sectors that answer with an error
    fail_after: int | None = None
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Keep the others who use this disk out."""
        return self.alone

    async def read(self, offset: int, length: int) -> bytes:
        """Read, as a driver would: whole sectors."""
        if offset + length > self.size_bytes:
            raise StorageFailed(f"read at {offset} + {length} is past the end")
        if self.unreadable & set(range(offset // SECTOR, -(-(offset + length) // SECTOR))):
            raise StorageFailed("input/output error")
        return read(self.image, offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        """Write and remember it; a write that fails leaves its first half."""
        if offset % 4096 or len(data) % 4096:
            raise AssertionError(f"write of {len(data)} bytes at {offset} is not of whole units")
        if offset + len(data) > self.size_bytes:
            raise AssertionError(f"write of {len(data)} bytes at {offset} is past the end")
        if self._fails():
            half = data[: len(data) // 2 // SECTOR * SECTOR]
            self._note(offset, half)
            raise StorageFailed("no space left on device")
        self._note(offset, data)

    async def flush(self) -> None:
        """Remember that all before is durable."""
        if self._fails():
            raise StorageFailed("flush failed")
        self.events.append(Event(None))

    def _note(self, offset: int, data: bytes) -> None:
        self.events.append(Event(offset, data))
        put(self.image, offset, data)

    def _fails(self) -> bool:
        if self.fail_after is None:
            return False
        self.fail_after -= 1
        return self.fail_after < 0


def read(image: Image, offset: int, length: int) -> bytes:
    """Take bytes out of an image."""
    first, skip = divmod(offset, SECTOR)
    last = -(-(offset + length) // SECTOR)
    there = range(first, last) if last - first < len(image) else [n for n in image if first <= n < last]
    raw = bytearray((last - first) * SECTOR)
    for number in there:
        if number in image:
            raw[(number - first) * SECTOR : (number - first + 1) * SECTOR] = image[number]
    return bytes(raw[skip : skip + length])


def put(image: Image, offset: int, data: bytes) -> None:
    """Put whole sectors into an image."""
    for at in range(0, len(data), SECTOR):
        sector = data[at : at + SECTOR]
        if sector.strip(b"\0"):
            image[(offset + at) // SECTOR] = sector
        else:
            image.pop((offset + at) // SECTOR, None)


def crash_states(start: Image, events: list[Event]) -> Iterator[tuple[int, Image]]:
    """Yield every state after a crash, to be opened: what a run of tests has proved is told by their number."""
    return CRASH_STATES.each(possible_states(start, events))


def possible_states(start: Image, events: list[Event]) -> Iterator[tuple[int, Image]]:
    """Yield every state after a crash, as (number of events begun, image), each moment's states once."""
    durable = dict(start)
    pending: list[Event] = []
    yield 0, dict(durable)
    for number, event in enumerate(events, 1):
        if event.offset is None:
            for write in pending:
                assert write.offset is not None
                put(durable, write.offset, write.data)
            pending = []
            yield number, dict(durable)
            continue
        pending.append(event)
        seen: set[frozenset[tuple[int, bytes]]] = set()
        for chosen in _combinations([_at_stake(durable, write, pending) for write in pending]):
            image = dict(durable)
            for write, sectors in zip(pending, chosen, strict=True):
                assert write.offset is not None
                for sector in sectors:
                    put(image, write.offset + sector * SECTOR, write.data[sector * SECTOR : (sector + 1) * SECTOR])
            key = frozenset(image.items())
            if key not in seen:
                seen.add(key)
                yield number, image


def _at_stake(durable: Image, write: Event, pending: list[Event]) -> tuple[int, ...]:
    """Number those sectors of a write for which it matters whether they have reached the disk."""
    assert write.offset is not None
    first = write.offset // SECTOR
    others = [other for other in pending if other is not write]
    return tuple(
        sector
        for sector in range(len(write.data) // SECTOR)
        if read(durable, write.offset + sector * SECTOR, SECTOR) != write.data[sector * SECTOR : (sector + 1) * SECTOR]
        or any(
            o.offset is not None and 0 <= first + sector - o.offset // SECTOR < len(o.data) // SECTOR for o in others
        )
    )


def _combinations(pending: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    choices = [_subsets(sectors) for sectors in pending]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total <= STATES_OF_A_MOMENT:
        return list(itertools.product(*choices))
    dice = random.Random(total)
    whole = [(choice[0], choice[-1]) for choice in choices]  # every write missing or there
    combinations = list(itertools.product(*whole)) if len(pending) <= 6 else []
    combinations += [tuple(dice.choice(choice) for choice in choices) for _ in range(STATES_OF_A_MOMENT)]
    return combinations


def _subsets(everything: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Give the parts of a write that may have reached the disk: the first is nothing, the last is all."""
    sectors = len(everything)
    if sectors <= SUBSETS_OF_A_WRITE:
        return [c for size in range(sectors + 1) for c in itertools.combinations(everything, size)]
    dice = random.Random(sectors)
    ends = sorted({1, 2, sectors // 2, sectors - 1})
    parts = [everything[:cut] for cut in ends] + [everything[cut:] for cut in ends]
    parts += [tuple(s for s in everything if dice.getrandbits(1)) for _ in range(SAMPLES)]
    return [(), *parts, everything]
