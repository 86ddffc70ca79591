"""What metadata cost as volumes become many: time and memory of a start, sectors that a change writes (R3).

    python -m benchmarks.metadata

Volumes of four partitions (a stripe over two mirrors) lie on 64 ALUs, which are sparse files. For each number of
volumes, a process of its own reads all ALUs and merges them into the system image, as a start does, and then makes
more volumes. A log that is full is written anew now and then; that is told apart. Times are of the processor: the
files lie in the page cache, and what a real disk takes is for others to measure.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from backstores.metadata.mends import mends
from backstores.metadata.merge import AluRecord, system_image
from backstores.metadata.store import AluMetadata
from backstores.objects import MIB, AnyObject, Extent, Leg, MirrorObject, PartitionObject, StripeObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn, new_object_wwn

VOLUMES: Final = (100, 1000, 10_000)
ALUS: Final = 64
ALU_BYTES: Final = 16 << 30
PARTITIONS: Final = 4
CREATED: Final = 15  # volumes made after the start, to count what that writes
MOST_COMMITS: Final = 4000  # until a log must have been full
SUSID: Final = "benchmark"
SECTOR: Final = 512
GOALS: Final = (
    "Goals: 10,000 volumes read and merged in under 5 s and 500 MiB; as many sectors for each number of volumes."
)
COLUMNS: Final = (
    "volumes",
    "read, s",
    "merge and mend, s",
    "peak, MiB",
    "sectors a create",
    "a create, ms",
    "sectors of a new base",
    "after commits",
)


class FileStorage:
    """An ALU in a sparse file that counts what is written. Nothing is flushed: costs are counted, not waited for."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.truncate(self._fd, ALU_BYTES)
        self.sectors = 0

    async def read(self, offset: int, length: int) -> bytes:
        """Read."""
        return os.pread(self._fd, length, offset)

    async def write(self, offset: int, data: bytes) -> None:
        """Write, and count."""
        self.sectors += len(data) // SECTOR
        os.pwrite(self._fd, data, offset)

    async def flush(self) -> None:
        """Do nothing."""

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Do nothing: nobody else is there."""
        yield


@dataclass(frozen=True, slots=True)
class Alu:
    """An ALU, and what counts its writes."""

    metadata: AluMetadata
    storage: FileStorage


class Maker:
    """Makes volumes, each part behind what its ALU holds already."""

    def __init__(self, alus: Sequence[AluMetadata]) -> None:
        self._alus = [alu.label.alu for alu in alus]
        self._numbers = itertools.count(1 + sum(len(alu.objects) for alu in alus))
        self._ends = {alu.label.alu: _end_of(alu) for alu in alus}

    def volume(self, number: int) -> dict[Wwn, list[AnyObject]]:
        """Make a volume: its objects by ALU, the volume object last."""
        first = number * PARTITIONS
        wwn, stripe, mirrors = self._name(), self._name(), (self._name(), self._name())
        legs = [self._leg(wwn, self._alus[at % len(self._alus)]) for at in range(first, first + PARTITIONS)]
        shared: tuple[AnyObject, ...] = (
            StripeObject(wwn=stripe, volume=wwn, children=mirrors, chunk_blocks=128, blocks=4096),
            VolumeObject(
                wwn=wwn,
                name=f"volume-{wwn[-8:]}",
                root=stripe,
                layout="stripe-mirror",
                block_bytes=SECTOR,
                blocks=4096,
                created="2026-01-01T00:00:00Z",
            ),
        )
        placed: dict[Wwn, list[AnyObject]] = {}
        for name, pair in zip(mirrors, (legs[:2], legs[2:]), strict=True):
            members = tuple(Leg(leg.wwn) for leg in pair)
            mirror = MirrorObject(wwn=name, volume=wwn, legs=members, region_blocks=8192, blocks=2048)
            placed |= {leg.alu: [mirror, leg, *shared] for leg in pair}
        return placed

    def _leg(self, volume: Wwn, alu: Wwn) -> PartitionObject:
        at = self._ends[alu]
        self._ends[alu] += 2 * MIB
        data, bitmap = Extent(at, MIB), Extent(at + MIB, MIB)
        return PartitionObject(wwn=self._name(), volume=volume, alu=alu, extent=data, bitmap=bitmap)

    def _name(self) -> Wwn:
        number = next(self._numbers)
        return new_object_wwn(lambda bits: number)


def _end_of(alu: AluMetadata) -> int:
    ends = [item.bitmap.end_bytes for item in alu.objects if isinstance(item, PartitionObject) and item.bitmap]
    return max(ends, default=alu.label.data.start_bytes)


def _open(folder: Path) -> list[Alu]:
    storages = [FileStorage(folder / f"alu{number}") for number in range(ALUS)]
    return [Alu(AluMetadata(storage, ALU_BYTES), storage) for storage in storages]


async def fill(folder: Path, volumes: int) -> None:
    """Make ALUs that hold so many volumes, spread evenly."""
    alus = [alu.metadata for alu in _open(folder)]
    numbers = itertools.count(1)
    for alu in alus:
        await alu.format(SUSID, new_device_wwn(lambda bits: next(numbers)))
    maker = Maker(alus)
    held: dict[Wwn, list[AnyObject]] = {alu.label.alu: [] for alu in alus}
    for number in range(volumes):
        for name, objects in maker.volume(number).items():
            held[name] += objects
    for alu in alus:
        await alu.commit(held[alu.label.alu])


async def measure(folder: Path, volumes: int) -> Mapping[str, float]:
    """Read and merge what the ALUs hold, and make some more volumes."""
    opened = _open(folder)
    began = time.process_time()
    inspections = [await alu.metadata.inspect(SUSID) for alu in opened]
    read = time.process_time()
    records = [
        AluRecord(alu.metadata.label.alu, alu.metadata.objects, found.findings)
        for alu, found in zip(opened, inspections, strict=True)
    ]
    image = system_image(records)
    todo = mends(records, image, complete=True)
    merged = time.process_time()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if len(image.volumes) != volumes or image.findings or todo:
        raise SystemExit(f"{len(image.volumes)} volumes, {len(image.findings)} findings, {len(todo)} mends")
    maker = Maker([alu.metadata for alu in opened])
    by_name = {alu.metadata.label.alu: alu for alu in opened}
    creates = [await _create(maker.volume(number), by_name) for number in range(CREATED)]
    sectors, times = zip(*creates, strict=True)
    base, commits = await _fill_log(opened[0])
    values = (volumes, read - began, merged - read, peak_mib)
    return dict(
        zip(COLUMNS, (*values, statistics.median(sectors), statistics.median(times), base, commits), strict=True)
    )


async def _create(placed: Mapping[Wwn, list[AnyObject]], alus: Mapping[Wwn, Alu]) -> tuple[int, float]:
    """Store a volume in the order of ``appliance.objectstore``: give the sectors written, and the milliseconds."""
    before = sum(alus[name].storage.sectors for name in placed)
    began = time.process_time()
    for name, objects in placed.items():
        alu = alus[name].metadata
        await alu.commit([*alu.objects, *objects[:-1]])
    for name, objects in placed.items():
        alu = alus[name].metadata
        await alu.commit([*alu.objects, objects[-1]])
    took_ms = 1000 * (time.process_time() - began)
    return sum(alus[name].storage.sectors for name in placed) - before, took_ms


async def _fill_log(alu: Alu) -> tuple[int, int]:
    """Change an object until the log is written anew: give what that wrote, and how many commits it took."""
    usual = 0
    for commits in range(1, MOST_COMMITS):
        first, *rest = alu.metadata.objects
        before = alu.storage.sectors
        await alu.metadata.commit([msgspec.structs.replace(first, generation=first.generation + 1), *rest])
        written = alu.storage.sectors - before
        usual = usual or written
        if written > usual:
            return written, commits
    return 0, MOST_COMMITS


def curve() -> str:
    """Measure each number of volumes in a process of its own; give the table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for volumes in VOLUMES:
        with tempfile.TemporaryDirectory(prefix="bench-metadata-") as folder:
            words = [sys.executable, "-m", "benchmarks.metadata"]
            subprocess.run([*words, "fill", folder, str(volumes)], check=True)
            done = subprocess.run([*words, "measure", folder, str(volumes)], check=True, capture_output=True, text=True)
        lines.append("| " + " | ".join(f"{value:,.4g}" for value in json.loads(done.stdout).values()) + " |")
    return "\n".join([*lines, "", GOALS])


def main() -> None:
    """Print the curve; or, as a process that it starts, do one step of it."""
    match sys.argv[1:]:
        case []:
            print(curve())
        case ["fill", folder, volumes]:
            asyncio.run(fill(Path(folder), int(volumes)))
        case ["measure", folder, volumes]:
            print(json.dumps(asyncio.run(measure(Path(folder), int(volumes)))))
        case words:
            sys.exit(f"{' '.join(words)!r} is not known: give no words at all")


if __name__ == "__main__":
    main()
