"""A legacy ALU is recognized by what it is, wherever it is found and however it has grown (R5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from appliance.messages import VolumeState
from appliance.sp import StorageProcessor
from backstores.block import Op, Request
from backstores.errors import UsageError
from backstores.wwn import Wwn
from tests.support.engines import loop_device, noise
from tests.support.legacy import (
    ODD,
    MemoryRecords,
    device,
    digest,
    old_data,
    on,
    whole,
)


def test_something_else_at_its_path_is_refused_until_a_person_says_that_it_is_the_same(tmp_path: Path) -> None:
    """R5: a copy is another file; a host must not go on with it unless somebody decides so."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def made(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp))

    async def refused(sp: StorageProcessor) -> None:
        with pytest.raises(UsageError, match="the legacy alu there, with volume old, was inode"):
            await sp.attach_legacy(str(old))
        assert (sp.alus(), sp.volumes()) == ([], [])

    async def forced(sp: StorageProcessor) -> None:
        await sp.attach_legacy(str(old), force=True)
        assert [v.state for v in sp.volumes()] == [VolumeState.ONLINE]

    async def found(sp: StorageProcessor) -> None:
        assert [v.state for v in sp.volumes()] == [VolumeState.ONLINE]

    on(tmp_path, records, made, old)
    shutil.copy(old, tmp_path / "copy")
    os.replace(tmp_path / "copy", old)
    on(tmp_path, records, refused)
    on(tmp_path, records, forced)
    on(tmp_path, records, found, old)


def test_a_record_that_can_not_be_read_holds_up_no_other(tmp_path: Path) -> None:
    """C3."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)
    records.kept[Wwn("5" * 16)] = b"nonsense"

    async def scenario(sp: StorageProcessor) -> None:
        await sp.attach_legacy(str(old))
        await sp.create_volume(whole(sp))

    on(tmp_path, records, scenario)


def test_a_file_that_has_grown_makes_a_larger_volume(tmp_path: Path) -> None:
    """R5: at the next start; the record says so, and the start after that."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def made(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp))

    async def found(sp: StorageProcessor) -> None:
        [volume] = sp.volumes()
        assert (volume.state, volume.blocks) == (VolumeState.ONLINE, ODD // 512 + 3)

    on(tmp_path, records, made, old)
    with old.open("ab") as handle:
        handle.write(b"3 more sectors" + bytes(3 * 512 - 14))
    on(tmp_path, records, found, old)
    on(tmp_path, records, found, old)


@pytest.mark.root
def test_a_disk_is_found_under_another_path_and_attached_once(tmp_path: Path) -> None:
    """R5: the kernel names disks as it finds them; two paths to one disk are one disk."""
    records, names = MemoryRecords(), list[Wwn]()

    async def made(sp: StorageProcessor) -> None:
        names.append((await sp.create_volume(whole(sp))).wwn)

    async def found(sp: StorageProcessor) -> None:
        assert [(volume.wwn, volume.state) for volume in sp.volumes()] == [(names[0], VolumeState.ONLINE)]

    async def twice(sp: StorageProcessor) -> None:
        with pytest.raises(UsageError, match=r"is the legacy alu '/dev/loop.*', by another path"):
            await sp.attach_legacy(second)

    with loop_device(tmp_path / "backing", 1 << 20) as first:
        on(tmp_path, records, made, Path(first))
        with loop_device(tmp_path / "backing", 1 << 20) as second:
            assert first != second
            on(tmp_path, records, found, Path(second))
            on(tmp_path, records, twice, Path(first))


@pytest.mark.root
@pytest.mark.parametrize("sector_bytes", [512, 4096], ids=["512-sectors", "4096-sectors"])
def test_a_disk_is_served_in_its_own_sectors(tmp_path: Path, sector_bytes: int) -> None:
    """R5: to the last of them, though 512 bytes don't make a page."""
    size_bytes = (1 << 20) + sector_bytes
    with loop_device(tmp_path / "backing", size_bytes, sector_bytes) as path:
        (tmp_path / "backing").write_bytes(noise(size_bytes))
        before = digest(tmp_path / "backing")

        async def scenario(sp: StorageProcessor) -> None:
            status = await sp.create_volume(whole(sp))
            assert (status.block_bytes, status.blocks) == (sector_bytes, size_bytes // sector_bytes)
            content = bytearray(sector_bytes)
            last = Request(Op.READ, status.blocks - 1, 1, memoryview(content))
            await device(sp, status.wwn).submit(last)
            assert content == noise(size_bytes)[-sector_bytes:]

        on(tmp_path, MemoryRecords(), scenario, Path(path))
        assert digest(tmp_path / "backing") == before
