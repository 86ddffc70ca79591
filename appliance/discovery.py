"""The disks of this machine that could be ALUs (R2): what the kernel lists, less what is not meant.

Only what has a device behind it counts. Loop devices, device-mapper and arrays are made by somebody for something, and
are attached by hand. Disks that come over iSCSI are left out, too: one could be a volume of ours, and asking it would
mean to wait for ourselves. Whether a disk is in use is not decided here: a driver opens with O_EXCL, which the kernel
refuses for what is mounted, has a partition that is, or is held by something.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LASTING: Final = ("by-id/wwn-", "by-id/nvme-eui.", "by-id/", "by-path/")
"""Which of udev's names to take, the best first: a disk's own, then its place. ``vdb`` may be ``vdc`` tomorrow."""
_OVER_ISCSI: Final = re.compile(r"/session\d+/|/tcm_loop")


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk: what it is called here, the most lasting path to it, and the kernel's."""

    name: str
    path: str
    device: str


DiskFinder = Callable[[], Sequence[Disk]]


def no_disks() -> Sequence[Disk]:
    """Find nothing: the finder of an appliance that does not look."""
    return ()


def find_disks(blocks: Path = Path("/sys/block"), dev: Path = Path("/dev")) -> Sequence[Disk]:
    """List the disks that could be ALUs, in use or not, by their names."""
    links = _links(dev)
    names = sorted(entry.name for entry in blocks.iterdir() if _is_disk(entry)) if blocks.is_dir() else []
    return [_disk(dev / name, links.get(name, [])) for name in names]


def _disk(device: Path, links: Sequence[str]) -> Disk:
    return Disk(name=device.name, path=min(links, key=_rank, default=str(device)), device=str(device))


def _is_disk(entry: Path) -> bool:
    """Tell a disk by its folder in sysfs. A medium that can be taken out is on its way to somewhere else."""
    attributes = {name: _number(entry / name) for name in ("size", "ro", "removable")}
    if not (entry / "device").exists() or attributes["size"] == 0 or attributes["ro"] or attributes["removable"]:
        return False
    return not _OVER_ISCSI.search(str(entry.resolve()))


def _number(file: Path) -> int:
    """Read an attribute; a disk that goes while it is looked at has the size 0."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _links(dev: Path) -> Mapping[str, list[str]]:
    """Collect udev's names for each device."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for folder in ("by-id", "by-path"):
        for link in sorted((dev / "disk" / folder).glob("*")):
            found[link.resolve().name].append(str(link))
    return found


def _rank(link: str) -> tuple[int, str]:
    return next(place for place, sort in enumerate(LASTING) if f"/{sort}" in link), link
