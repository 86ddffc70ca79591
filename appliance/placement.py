"""Where the parts of a volume go: which ALUs, and which extents on them (R8).

The ALUs a person names are taken in that order. Otherwise those with most free space come first, so
that one volume after the other goes round all of them. Equal parts (stripe columns, mirror legs)
each lie in one piece on an ALU of their own; a linear or concatenated volume takes what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.messages import AluState, AluStatus
from appliance.mic.values import exact_size, human_size
from backstores.errors import UsageError
from backstores.metadata.free import allocate
from backstores.metadata.layout import ALLOCATION_UNIT
from backstores.objects import Extent
from backstores.wwn import Wwn

LISTED_ALUS = 8  # how many an error line lists


@dataclass(frozen=True, slots=True)
class Place:
    """Room on an ALU."""

    alu: Wwn
    extent: Extent


@dataclass(frozen=True, slots=True)
class Candidates:
    """The ALUs that a volume may use. ``named`` holds those that it must use, ``preferred`` those it had before."""

    inventory: Sequence[AluStatus]
    block_bytes: int
    named: tuple[Wwn, ...] = ()
    preferred: tuple[Wwn, ...] = ()
    max_alus: int | None = None

    def equal_parts(self, count: int, part_bytes: int) -> list[Place]:
        """Take one piece of ``part_bytes`` on each of ``count`` different ALUs.

        Raises:
            UsageError: too few ALUs, or too little room on them.
        """
        found = self._of_count(count)
        roomy = [alu for alu in found if _longest(alu) >= part_bytes]
        if len(roomy) < count:
            raise UsageError(
                f"{exact_size(part_bytes)} in one piece are needed on each of {count} alus;"
                f" the longest free pieces are {_listed((alu, _longest(alu)) for alu in found)}"
            )
        return [Place(_wwn(alu), allocate(alu.free, part_bytes)[0]) for alu in roomy[:count]]

    def spread(self, count: int, size_bytes: int) -> list[Place]:
        """Take room on ``count`` ALUs, as equal as their free space allows.

        Raises:
            UsageError: too few ALUs, or too little room on them.
        """
        members = self._of_count(count)[:count]
        self._require(members, size_bytes)
        shares: dict[str, int] = {}
        rest = size_bytes
        # From the fullest to the emptiest: what one can't take is shared by those behind it.
        for number, alu in enumerate(sorted(members, key=lambda alu: alu.free_bytes)):
            shares[alu.path] = min(alu.free_bytes, _units(-(-rest // (count - number))), rest)
            rest -= shares[alu.path]
        return [place for alu in members for place in _pieces(alu, shares[alu.path])]

    def fill(self, size_bytes: int) -> list[Place]:
        """Take room on as few ALUs as will do, one after the other.

        Raises:
            UsageError: too little room.
        """
        found = self._ordered()
        if not self.named:
            found.sort(key=lambda alu: _longest(alu) < size_bytes)
        found = found[: self.max_alus]
        self._require(found, size_bytes)
        places: list[Place] = []
        for alu in found:
            part_bytes = min(size_bytes, alu.free_bytes)
            places += _pieces(alu, part_bytes)
            size_bytes -= part_bytes
        return places

    def _of_count(self, count: int) -> list[AluStatus]:
        """Give at least ``count`` ALUs in their order, exactly as many where they are named."""
        if self.max_alus is not None and count > self.max_alus:
            raise UsageError(f"the layout takes {count} alus, and the volume may span {self.max_alus}: allow more")
        if self.named and len(self.named) != count:
            raise UsageError(
                f"the layout takes {count} alus, not {len(self.named)}: name {count}, or change width or legs"
            )
        found = self._ordered()
        if len(found) < count:
            raise UsageError(f"the layout takes {count} alus, there are {len(found)}: attach more, or ask for less")
        return found

    def _ordered(self) -> list[AluStatus]:
        """Give the ALUs that can be used, best first."""
        usable = {_wwn(alu): alu for alu in self.inventory if self._why_not(alu) is None}
        if not self.named:
            rank = {wwn: number for number, wwn in enumerate(self.preferred)}
            return sorted(usable.values(), key=lambda alu: (rank.get(_wwn(alu), len(rank)), -alu.free_bytes))
        known = {alu.wwn: alu for alu in self.inventory}
        for wwn in self.named:
            if wwn not in known:
                raise UsageError(f"alu {wwn} is not attached")
            reason = self._why_not(known[wwn])
            if reason is not None:
                raise UsageError(f"alu {known[wwn].path} {reason}")
            if self.named.count(wwn) > 1:
                raise UsageError(f"alu {known[wwn].path} is named more than once")
        return [usable[wwn] for wwn in self.named]

    def _why_not(self, alu: AluStatus) -> str | None:
        if alu.wwn is None or alu.state is not AluState.OWNED:
            return f"is {alu.state}: volumes take owned alus only"
        if alu.sector_bytes > self.block_bytes:
            return f"has sectors of {alu.sector_bytes} bytes: blocks of {self.block_bytes} bytes are too small for it"
        return None

    def _require(self, alus: Sequence[AluStatus], size_bytes: int) -> None:
        free_bytes = sum(alu.free_bytes for alu in alus)
        if free_bytes < size_bytes:
            raise UsageError(
                f"{exact_size(size_bytes)} are needed, {human_size(free_bytes)} are free on {len(alus)} alus:"
                f" {_listed((alu, alu.free_bytes) for alu in alus)}; add an alu, or ask for less"
            )


def _wwn(alu: AluStatus) -> Wwn:
    assert alu.wwn is not None
    return alu.wwn


def _longest(alu: AluStatus) -> int:
    return max((extent.length_bytes for extent in alu.free), default=0)


def _units(length_bytes: int) -> int:
    """Round up to whole allocation units."""
    return -(-length_bytes // ALLOCATION_UNIT) * ALLOCATION_UNIT


def _pieces(alu: AluStatus, length_bytes: int) -> list[Place]:
    extents = allocate(alu.free, length_bytes) if length_bytes else []
    return [Place(_wwn(alu), extent) for extent in extents]


def _listed(sizes: Iterable[tuple[AluStatus, int]]) -> str:
    texts = [f"{human_size(length_bytes)} on {alu.path}" for alu, length_bytes in sizes]
    more = f" and {len(texts) - LISTED_ALUS} more" if len(texts) > LISTED_ALUS else ""
    return ", ".join(texts[:LISTED_ALUS]) + more if texts else "none"
