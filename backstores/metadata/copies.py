"""Which of several copies of one sector counts (M1, M2, M3): the one function that decides it.

Copies say the same except for their address. They are written one after the other, the oldest first, with a
flush behind the first, so that a whole copy exists at every moment. The good one with the highest generation
counts. Two good copies of one generation that differ were never written by us: then none counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from backstores.metadata.findings import Finding, Problem
from backstores.metadata.sector import SectorError
from backstores.metadata.steps import Flush, Step, Write, padded


class Dated(Protocol):
    """What is read of a copy."""

    @property
    def generation(self) -> int:
        """One more at every write."""


T = TypeVar("T", bound=Dated)


@dataclass(frozen=True, slots=True)
class Copy:
    """What could be read at one of the places: bytes, or the error that came instead."""

    address: int
    raw: bytes
    error: str = ""


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """The copy that counts, and what its next writer must know.

    ``newest`` is the good copy with the highest generation, even where none counts; ``order`` is that in
    which the copies may be overwritten.
    """

    winner: T | None
    newest: T | None
    findings: tuple[Finding, ...]
    order: tuple[int, ...]


def choose(name: str, copies: Sequence[Copy], parse: Callable[[bytes, int], T]) -> Choice[T]:
    """Decide which copy counts. ``parse`` raises SectorError for one that is not good."""
    good: dict[int, T] = {}
    findings: list[Finding] = []
    for copy in copies:
        where = f"{name} at byte {copy.address}"
        if copy.error:
            findings.append(Finding(Problem.UNREADABLE, where, copy.error))
            continue
        try:
            good[copy.address] = parse(copy.raw, copy.address)
        except SectorError as error:
            findings.append(error.finding(where))
    order = tuple(sorted((c.address for c in copies), key=lambda a: good[a].generation if a in good else -1))
    newest = max(good.values(), key=lambda one: one.generation, default=None)
    if newest is None:
        return Choice(None, None, tuple(findings), order)
    for address, one in good.items():
        where = f"{name} at byte {address}"
        if one.generation < newest.generation:
            text = f"generation {one.generation}, superseded by generation {newest.generation}"
            findings.append(Finding(Problem.UNFINISHED, where, text))
        elif one != newest:
            text = f"generation {one.generation} is there twice, and the two differ"
            findings.append(Finding(Problem.CONTRADICTION, where, text))
            return Choice(None, newest, tuple(findings), order)
    return Choice(newest, newest, tuple(findings), order)


def commit(build: Callable[[int], bytes], order: Iterable[int]) -> list[Step]:
    """Say how a renewed sector gets to all its places: the first is durable before the others are touched."""
    first, *others = (Write(address, padded(build(address))) for address in order)
    return [first, Flush(), *others, Flush()] if others else [first, Flush()]
