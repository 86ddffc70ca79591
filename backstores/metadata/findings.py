"""What is wrong with metadata that was read, told instead of raised.

One damaged copy must not hide the good one, and one broken volume must not hold up the others (C3):
so the functions that read metadata give back what they could use and a list of findings.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from backstores.wwn import Wwn


class Problem(enum.StrEnum):
    """The kinds of findings."""

    UNREADABLE = "unreadable"  # the disk answered with an error
    ABSENT = "absent"  # no magic number: never written, or overwritten by others
    DAMAGED = "damaged"  # the checksum, or a value it covers, is wrong
    NEWER = "newer version"  # written by a later release
    MISPLACED = "misplaced"  # a good copy of something that belongs elsewhere
    FOREIGN = "foreign"  # it names another ALU
    UNFINISHED = "unfinished"  # a write that a crash cut short; the older state is whole
    LOST = "lost"  # a newer state was committed and can't be read any more
    STALE = "stale"  # an older copy of an object that has changed since
    DUPLICATE = "duplicate"
    OUTSIDE = "outside"  # an extent that leaves the data area
    OVERLAP = "overlap"
    INVALID = "invalid"  # a value that no writer of ours would have stored
    MISSING = "missing"  # something names an object that was found nowhere
    ORPHAN = "orphan"  # an object that no volume leads to
    CONTRADICTION = "contradiction"  # two statements that can't both be true


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``wwn`` names the object it concerns, where it concerns one."""

    problem: Problem
    where: str
    detail: str
    wwn: Wwn | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}: {self.detail}"
