"""Persistent reservations that are to outlive a power loss (APTPL, SPC-4 clause 5.12).

With LIO they are the kernel's. It writes a file for each backstore whenever they change, and refuses every
PERSISTENT RESERVE OUT where the folder of these files is missing. It never reads them: whoever makes a backstore
anew hands them to it, before the first LUN leads there. What such a registration names has to be as it was, LUN
numbers of the portal group included; these are ours to choose, so they are put right on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/kernel/config/target")
"""LIO's part of configfs."""

BEGIN: Final = "PR_REG_START:"
END: Final = "PR_REG_END:"
LUN: Final = "target_lun="


def folder(root: Path = ROOT) -> Path:
    """Give the folder of the files; LIO says where its databases are."""
    return Path((root / "dbroot").read_text().strip(), "pr")


def kept_for(serial: str, lun: int, files: Path) -> Iterator[str]:
    """Give what was kept for a serial number: each registration in one piece, for a LUN of the portal group."""
    try:
        text = (files / f"aptpl_{serial}").read_text(errors="replace")
    except FileNotFoundError:
        return
    for piece in text.split(BEGIN)[1:]:
        lines = piece.partition(END)[0].split("\n")[1:]  # behind BEGIN stands a number that means nothing
        yield ",".join(f"{LUN}{lun}" if line.startswith(LUN) else line for line in lines if line)
