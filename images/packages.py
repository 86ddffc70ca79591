"""Which Debian packages the image is made of: what is asked for, and what is known to come with it.

A mirror has the newest version of a package alone, so the recorded ones go stale when Debian mends something. What
differs is told, and a build that must be the same refuses it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


class Lock(enum.StrEnum):
    """What to do where packages differ from those recorded."""

    TELL = "tell"
    STRICT = "strict"  # fail
    WRITE = "write"  # record them


@dataclass(frozen=True, slots=True)
class Wanted:
    """The packages to install; those for building alone are removed again."""

    kept: tuple[str, ...]
    build: tuple[str, ...]


def read_wanted(text: str) -> Wanted:
    """Read the list of packages to install: a name a line, and why."""
    rows = [line.partition("#") for line in text.splitlines()]
    named = [(name.strip(), why.strip()) for name, _, why in rows if name.strip()]
    return Wanted(
        tuple(name for name, why in named if why != "build"), tuple(name for name, why in named if why == "build")
    )


def read_lock(text: str) -> dict[str, str]:
    """Read ``name=version`` lines."""
    lines = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: version for name, _, version in lines}


def write_lock(installed: Mapping[str, str]) -> str:
    """Write ``name=version`` lines in the order of names."""
    return "".join(f"{name}={version}\n" for name, version in sorted(installed.items()))


def installed_in(root: Path) -> dict[str, str]:
    """Read from a tree's dpkg what is installed in it."""
    found: dict[str, str] = {}
    for paragraph in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields["Version"]
    return found


def differences(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Say what differs, a line each."""
    lines: Iterable[str] = (
        f"{name}: {locked.get(name, 'not recorded')} -> {installed.get(name, 'not installed')}"
        for name in sorted(locked.keys() | installed.keys())
        if locked.get(name) != installed.get(name)
    )
    return list(lines)
