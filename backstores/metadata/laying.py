"""How an ALU is laid out by a claim, and how one of version 1 becomes one of version 2: steps, without I/O.

Both make their difference with one sector, the first copy of the new label. All that this label leads to is
durable before it, and lies where nothing live is; what it supersedes is overwritten after it. So a crash leaves
the old ALU or the new one (M6), and what it interrupted can be begun again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backstores.errors import UsageError
from backstores.metadata import label as labels
from backstores.metadata import mdr, region, witness
from backstores.metadata import table as tables
from backstores.metadata.inspection import Inspection
from backstores.metadata.label import Label
from backstores.metadata.layout import FORMAT_VERSION, MOST_TABLE_BYTES, TABLE_BYTES, region_plan, table_addresses
from backstores.metadata.mdr import Directory
from backstores.metadata.region import RegionState
from backstores.metadata.sector import SectorError, following, stamped
from backstores.metadata.steps import Reads, Step
from backstores.metadata.table import Entry, Key, Table
from backstores.objects import Extent
from backstores.wwn import Wwn


@dataclass(frozen=True, slots=True)
class LaidOut:
    """What an ALU is once all steps have ended well."""

    steps: tuple[Step, ...]
    label: Label
    directory: Directory
    state: RegionState
    table: Table


def claim(found: Inspection, susid: str, alu: Wwn, size_bytes: int, now_ns: int, epoch: int) -> LaidOut:
    """Lay an ALU out afresh, without objects, whatever it held.

    Raises:
        UsageError: SUSID or name can't be stored, or the ALU has this name already: the old directory would count.
    """
    mdr.check_susid(susid)
    if found.label is not None and found.label.alu == alu:
        raise UsageError(f"the alu is named {alu} already: a claim gives it another name")
    label = replace(labels.new_label(alu, size_bytes), epoch=epoch)
    label = labels.renewed(label, found.choice.newest, now_ns)
    plan = region_plan(size_bytes)
    directory = mdr.renewed(Directory(susid, alu, plan.regions, plan.region_bytes, epoch), None, now_ns)
    live = _live(found)
    first = next(n for n, extent in enumerate(directory.region_extents) if not _overlap(extent, live))
    return _laid_out(found, label, directory, RegionState((), 1, stamped(0, now_ns), epoch, first, None), Table())


def table_before(found: Inspection, size_bytes: int) -> Reads[Table]:
    """Read what an earlier attempt at a migration may have written of the partition table."""
    table, _ = yield from witness.recover(_label_2(found, size_bytes))
    return table


def migrate(found: Inspection, table: Table, size_bytes: int, now_ns: int, epoch: int) -> LaidOut:
    """Bring an owned ALU of version 1 to version 2. What lies on it stays in its place.

    Raises:
        UsageError: something lies where version 2 has no room for it, or there are too many partitions.
    """
    state, old = found.state, found.directory
    assert state is not None
    assert old is not None
    label = labels.renewed(replace(_label_2(found, size_bytes), epoch=epoch), found.choice.newest, now_ns)
    directory = mdr.renewed(replace(old, epoch=max(epoch, old.epoch)), None, now_ns)
    try:
        mdr.check_regions(directory, label.areas, size_bytes)
    except SectorError as error:
        raise UsageError(f"alu {label.alu} can't be brought to this version of the format: {error}") from error
    entries, most = len(_entries(found)), tables.entries_of(label.table_bytes)
    if entries > most:
        raise UsageError(
            f"alu {label.alu} has {entries} partitions and bitmaps, version {FORMAT_VERSION} of the format has room for"
            f" {most}: delete volumes with the release that wrote it, then attach it again"
        )
    after = replace(
        state,
        generation=following(state.generation),
        time_ns=stamped(state.time_ns, now_ns),
        epoch=epoch,
        live=1 - state.live,
    )
    return _laid_out(found, label, directory, after, table)


def _label_2(found: Inspection, size_bytes: int) -> Label:
    assert found.label is not None
    many = len(_entries(found)) > tables.MOST_ENTRIES
    table_bytes = MOST_TABLE_BYTES if many else TABLE_BYTES
    places = table_addresses(size_bytes, table_bytes)
    return replace(found.label, size_bytes=size_bytes, tables=places, table_bytes=table_bytes, directory=None)


def _entries(found: Inspection) -> Mapping[Key, Entry]:
    """Give the entries that the partition table must have room for."""
    assert found.label is not None
    assert found.state is not None
    return witness.settled(found.state.objects, {}, found.label.data)


def _laid_out(found: Inspection, label: Label, directory: Directory, state: RegionState, table: Table) -> LaidOut:
    """Put the parts in order: what is new and in nobody's way, the label, and the rest."""
    first_place, second_place = found.directory_order
    entries = tables.update(table, witness.settled(state.objects, {}, label.data), label, state.time_ns, state.epoch)
    first = region.base(state, directory)
    time_ns = stamped(state.time_ns, state.time_ns)
    renewed = replace(state, generation=following(state.generation), time_ns=time_ns, live=1 - state.live)
    second = region.base(renewed, directory)
    early = () if _overlap(directory.region_extents[renewed.live], _live(found)) else second.steps
    steps = (
        *mdr.commit(directory, (first_place,)),
        *entries.steps,
        *first.steps,
        *early,
        *labels.commit(label, found.choice.order),
        *mdr.commit(directory, (second_place,)),
        *(() if early else second.steps),
    )
    return LaidOut(steps, label, directory, second.after, entries.after)


def _live(found: Inspection) -> Extent | None:
    """Say where the objects of what the ALU is now lie."""
    if found.directory is None or found.state is None:
        return None
    return found.directory.region_extents[found.state.live]


def _overlap(one: Extent, other: Extent | None) -> bool:
    return other is not None and one.start_bytes < other.end_bytes and other.start_bytes < one.end_bytes
