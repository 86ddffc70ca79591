"""Who is to be the MVSP (step 508)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """What speaks for a storage processor as the MVSP."""

    name: str
    alus: int
    load: float
    paths: int


def elect(candidates: Iterable[Candidate]) -> Candidate | None:
    """Choose the MVSP: most ALUs, then least load, then most redundant paths, then the name (step 508)."""
    return min(candidates, key=lambda one: (-one.alus, one.load, -one.paths, one.name), default=None)
