"""What hosts may see of a block device on which many things happen at once: a checker, block by block.

Every change writes a number of its own (zero is what DISCARD and ZERO leave). For each block the checker keeps
the numbers that a read may return now. They become fewer

- when a change is acknowledged: whatever had ended before it began is overwritten;
- when a read returns a number: whatever had ended before the read began, and is another, is not there. So two reads
  after each other never go back.

What failed or was cancelled may have happened or not, until a read or a later change settles it; what reads saw of it
before its end may be taken back by then. A crash may leave what a flush (or FUA) has not superseded. A leg that is lost
takes back what reads alone had settled.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WORD_BYTES = 8
NOT_YET = 1 << 62


def content(number: int, blocks: int, block_bytes: int) -> bytes:
    """Fill blocks with a number."""
    return number.to_bytes(WORD_BYTES, "big") * (blocks * block_bytes // WORD_BYTES)


def numbers(data: bytes, block_bytes: int) -> list[int]:
    """Give the number in each block; one with two of them was torn."""
    found = []
    for at in range(0, len(data), block_bytes):
        number = int.from_bytes(data[at : at + WORD_BYTES], "big")
        assert data[at : at + block_bytes] == content(number, 1, block_bytes), f"a torn block holds {number}"
        found.append(number)
    return found


@dataclass(slots=True)
class Block:
    """The numbers that one block may hold."""

    possible: set[int] = field(default_factory=lambda: {0})
    durable: set[int] = field(default_factory=lambda: {0})  # that it may hold after a crash
    unseen: set[int] = field(default_factory=set)  # that only reads have ruled out
    under_way: Counter[int] = field(default_factory=Counter)
    ended: dict[int, int] = field(default_factory=lambda: {0: 0})

    def older(self, than: int, but: int) -> set[int]:
        """Give the numbers whose changes had all ended before a moment."""
        return {number for number in self.possible | self.durable if number != but and self.end(number) < than}

    def end(self, number: int) -> int:
        """Say when the last change to a number ended."""
        return NOT_YET if self.under_way[number] else self.ended[number]


@dataclass(slots=True, eq=False)
class Change:
    """A change under way."""

    number: int
    blocks: range
    begun: int


@dataclass(slots=True, eq=False)
class Look:
    """A read or a flush under way: what each block may have held since it began."""

    blocks: Sequence[int]
    begun: int
    held: dict[int, set[int]]


class History:
    """The blocks of a device, and what is under way on them."""

    def __init__(self, blocks: Iterable[int]) -> None:
        self.blocks = {lba: Block() for lba in blocks}
        self._clock = itertools.count(1)
        self._changes: dict[Change, None] = {}
        self._looks: dict[Look, None] = {}
        self._holds: dict[int, tuple[range, int]] = {}

    def begin_change(self, number: int, blocks: range) -> Change:
        """Hear that a change was asked for."""
        change = Change(number, blocks, next(self._clock))
        self._changes[change] = None
        for lba in blocks:
            block = self.blocks[lba]
            block.under_way[number] += 1
            block.possible.add(number)
            block.durable.add(number)
            for look in self._looks:
                if lba in look.held:
                    look.held[lba].add(number)
        return change

    def end_change(self, change: Change, acknowledged: bool, durable: bool = False, holder: bool = False) -> None:
        """Hear how a change ended; ``holder``: it was made by the one who held the range."""
        if change not in self._changes:
            return  # power failed first
        del self._changes[change]
        now = next(self._clock)
        for lba in change.blocks:
            block = self.blocks[lba]
            block.under_way[change.number] -= 1
            block.ended[change.number] = now
            if acknowledged:
                older = block.older(change.begun, change.number)
                block.possible -= older
                block.unseen -= older
                if durable:
                    block.durable -= older
            else:
                self._come_back(lba)  # on a full disk, what reads have seen of it is taken back
        for held, since in self._holds.values():
            overlaps = held.start < change.blocks.stop and change.blocks.start < held.stop
            assert holder or not acknowledged or not overlaps or change.begun < since, (
                f"{change.number} was written to {change.blocks} while somebody held {held}"
            )

    def begin_hold(self, blocks: range) -> int:
        """Hear that somebody keeps all others out of a range."""
        now = next(self._clock)
        self._holds[now] = (blocks, now)
        return now

    def end_hold(self, hold: int) -> None:
        """Hear that others may write there again."""
        self._holds.pop(hold, None)

    def begin_read(self, blocks: range) -> Look:
        """Hear that a read was asked for."""
        return self._look(blocks)

    def end_read(self, look: Look, found: Sequence[int]) -> None:
        """Hear what a read returned, and judge it."""
        if look not in self._looks:
            return  # power failed first
        del self._looks[look]
        for lba, number in zip(look.blocks, found, strict=True):
            block = self.blocks[lba]
            assert number in look.held[lba], f"block {lba} reads {number}, it may hold {sorted(look.held[lba])}"
            gone = block.older(look.begun, number) & block.possible
            block.possible -= gone
            block.unseen |= gone

    def begin_flush(self) -> Look:
        """Hear that a flush was asked for."""
        return self._look(tuple(self.blocks))

    def end_flush(self, look: Look) -> None:
        """Hear that a flush ended well."""
        if look not in self._looks:
            return  # power failed first
        del self._looks[look]
        for lba in look.blocks:
            self.blocks[lba].durable &= look.held[lba]

    def forget(self, look: Look) -> None:
        """Hear that a read or a flush failed."""
        self._looks.pop(look, None)

    def lose_leg(self) -> None:
        """Hear that a mirror goes on without a leg: what only some legs have may come back."""
        for lba in self.blocks:
            self._come_back(lba)

    def _come_back(self, lba: int) -> None:
        """Take back what reads have ruled out."""
        block = self.blocks[lba]
        block.possible |= block.unseen
        for look in self._looks:
            if lba in look.held:
                look.held[lba] |= block.unseen
        block.unseen.clear()

    def crash(self) -> None:
        """Hear that power failed: nothing is under way any more."""
        now = next(self._clock)
        self._changes.clear()
        self._looks.clear()
        self._holds.clear()
        for block in self.blocks.values():
            for number in +block.under_way:
                block.ended[number] = now
            block.under_way.clear()
            block.possible = set(block.durable)
            block.unseen.clear()

    def _look(self, blocks: Sequence[int]) -> Look:
        held = {lba: self.blocks[lba].possible | self.blocks[lba].unseen for lba in blocks}
        if isinstance(blocks, range):
            held = {lba: set(self.blocks[lba].possible) for lba in blocks}
        look = Look(blocks, next(self._clock), held)
        self._looks[look] = None
        return look
