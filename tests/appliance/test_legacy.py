"""Legacy ALUs: not one byte of them is the appliance's, and each may be one volume as it is (R5)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.inventory import Inventory
from appliance.messages import AluState, VolumeState
from appliance.sp import StorageProcessor
from backstores.block import Op, Request
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.scsi.direct import PLAIN_COMMANDS
from backstores.wwn import Wwn
from tests.support.engines import noise
from tests.support.legacy import (
    ODD,
    MemoryRecords,
    device,
    digest,
    old_data,
    on,
    read,
    whole,
)


def test_not_one_byte_is_written_but_what_hosts_write(tmp_path: Path) -> None:
    """R5: over attach, volume, restart, delete and detach; what hosts write lands exactly at its address."""
    old, records = tmp_path / "old.img", MemoryRecords()
    before = old_data(old)
    last = ODD // 512 - 1
    wrote = {0: b"a" * 512, 1501: b"b" * 512, last: b"c" * 512}

    async def unused(sp: StorageProcessor) -> None:
        status = await sp.attach_legacy(str(old))
        assert status.state is AluState.LEGACY
        assert status.detail.startswith(f"known by inode {old.stat().st_ino}")
        await sp.detach(str(old))
        await sp.attach_legacy(str(old))

    on(tmp_path, records, unused)
    assert digest(old) == before
    names: list[Wwn] = []

    async def served(sp: StorageProcessor) -> None:
        status = await sp.create_volume(whole(sp))
        names.append(status.wwn)
        assert (status.state, status.blocks, status.block_bytes) == (VolumeState.ONLINE, last + 1, 512)
        assert await read(sp, status.wwn, 0, 2048) == noise(2048 * 512)

    on(tmp_path, records, served, old)
    assert digest(old) == before

    async def written(sp: StorageProcessor) -> None:
        for lba, data in wrote.items():
            await device(sp, names[0]).submit(Request(Op.WRITE, lba, 1, memoryview(data)))
            assert await read(sp, names[0], lba) == data

    on(tmp_path, records, written, old)
    expected = bytearray(noise(ODD))
    for lba, data in wrote.items():
        expected[lba * 512 : (lba + 1) * 512] = data
    assert old.read_bytes() == expected

    async def gone(sp: StorageProcessor) -> None:
        [volume] = sp.volumes()
        await sp.delete_volume(volume.wwn)
        assert sp.volumes() == []
        await sp.detach(str(old))

    on(tmp_path, records, gone, old)
    assert old.read_bytes() == expected
    assert records.kept == {}


def test_space_that_hosts_give_back_is_given_back_there_alone(tmp_path: Path) -> None:
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def unmapped(sp: StorageProcessor) -> None:
        volume = await sp.create_volume(whole(sp))
        end = volume.blocks
        await device(sp, volume.wwn).submit(Request(Op.DISCARD, end - 5, 5))
        await device(sp, volume.wwn).submit(Request(Op.FLUSH, 0, end))

    on(tmp_path, records, unmapped, old)
    assert old.read_bytes() == noise(ODD)[: -5 * 512] + bytes(5 * 512)


@pytest.mark.parametrize("size_bytes", [4096, 4608, ODD, (20 << 20) + 512], ids=str)
def test_it_may_be_small_and_of_any_number_of_sectors(tmp_path: Path, size_bytes: int) -> None:
    """R5: smaller than any ALU with metadata, too."""
    old = tmp_path / "old.img"
    old_data(old, size_bytes)

    async def scenario(sp: StorageProcessor) -> None:
        status = await sp.create_volume(whole(sp))
        assert status.blocks * status.block_bytes == size_bytes
        assert await read(sp, status.wwn, status.blocks - 1) == noise(size_bytes)[-512:]

    on(tmp_path, MemoryRecords(), scenario, old)


def test_it_is_open_to_be_written_only_while_there_is_a_volume(tmp_path: Path) -> None:
    """R5: as its volumes need, and no longer."""
    old = tmp_path / "old.img"
    old_data(old)

    def writable() -> bool:
        mine = (os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd"))
        there = [link for link in mine if os.path.islink(link) and os.readlink(link) == str(old)]
        return any(int(flags_of(link), 8) & os.O_ACCMODE for link in there)

    def flags_of(link: str) -> str:
        return Path(link.replace("/fd/", "/fdinfo/")).read_text().split("flags:")[1].split()[0]

    async def scenario(sp: StorageProcessor) -> None:
        assert not writable()
        status = await sp.create_volume(whole(sp))
        assert writable()
        await sp.delete_volume(status.wwn)
        assert not writable()
        await sp.create_volume(whole(sp))
        await sp.close()
        assert not writable(), "it may not be written when the lock goes"

    on(tmp_path, MemoryRecords(), scenario, old)


def test_it_carries_one_volume_and_can_not_go_while_that_is_there(tmp_path: Path) -> None:
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def scenario(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp))
        for layout in ("legacy", "direct"):
            with pytest.raises(UsageError, match="is in use by volume old, as a whole"):
                await sp.create_volume(whole(sp, "other", layout))
        with pytest.raises(UsageError, match="is in use by volume old; delete it first"):
            await sp.detach(str(old))
        with pytest.raises(UsageError, match="there is a volume 'old' already"):
            await sp.create_volume(whole(sp))
        assert len(sp.volumes()) == 1

    on(tmp_path, records, scenario, old)


@pytest.mark.parametrize("force", [False, True], ids=["asked", "forced"])
def test_it_is_never_claimed(tmp_path: Path, force: bool) -> None:
    """R2, R5: neither as what it is, nor when its volume is there and it was attached as an ordinary one."""
    old, records = tmp_path / "old.img", MemoryRecords()
    before = old_data(old, 20 << 20)

    async def as_it_is(sp: StorageProcessor) -> None:
        with pytest.raises(UsageError, match="is a legacy alu, whose data must not be touched"):
            await sp.claim(str(old), force)
        with pytest.raises(UsageError, match="is attached already, as a legacy alu"):
            await sp.attach(str(old))
        await sp.create_volume(whole(sp))

    async def by_mistake(sp: StorageProcessor) -> None:
        await sp.attach(str(old))
        with pytest.raises(UsageError, match="is a legacy alu, with the data of volume old"):
            await sp.claim(str(old), force)

    on(tmp_path, records, as_it_is, old)
    on(tmp_path, records, by_mistake)
    assert digest(old) == before


def test_without_a_place_for_its_record_it_is_refused(tmp_path: Path) -> None:
    """R5: nothing is left open, and nothing is known of it."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def scenario(sp: StorageProcessor) -> None:
        records.fail = True
        with pytest.raises(TiergateError, match="below a majority"):
            await sp.attach_legacy(str(old))
        assert sp.alus() == []
        await sp.attach_legacy(str(old))
        records.fail = True
        with pytest.raises(TiergateError, match="below a majority"):
            await sp.create_volume(whole(sp))
        assert sp.volumes() == []
        volume = await sp.create_volume(whole(sp))
        records.fail = True
        with pytest.raises(TiergateError, match="below a majority"):
            await sp.delete_volume(volume.wwn)
        assert [v.state for v in sp.volumes()] == [VolumeState.OFFLINE]
        await sp.delete_volume(volume.wwn)
        records.fail = True
        with pytest.raises(TiergateError, match="below a majority"):
            await sp.detach(str(old))
        assert [alu.state for alu in sp.alus()] == [AluState.LEGACY]

    on(tmp_path, records, scenario)


def test_the_last_alu_that_keeps_its_record_can_not_go(tmp_path: Path) -> None:
    """R5: with that, the volume would be forgotten."""
    old = tmp_path / "old.img"
    old_data(old)
    first, second = str(tmp_path / "a0.img"), str(tmp_path / "a1.img")

    async def scenario(sp: StorageProcessor) -> None:
        for path in (first, second):
            await sp.attach(path, 20 << 20)
            await sp.claim(path)
        await sp.attach_legacy(str(old))
        await sp.detach(second)
        with pytest.raises(UsageError, match=f"is the last to keep the metadata of legacy alu '{old}': detach that"):
            await sp.detach(first)
        await sp.detach(str(old))
        await sp.detach(first)

    on(tmp_path, MemoryRecords(), scenario)


def test_what_is_known_already_needs_no_change_of_the_gs_set(tmp_path: Path) -> None:
    """R5, M4: below a majority volumes go on, after a restart, too."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def made(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp))

    async def found(sp: StorageProcessor) -> None:
        assert [v.state for v in sp.volumes()] == [VolumeState.ONLINE]

    on(tmp_path, records, made, old)
    records.fail, changes = True, records.changes
    on(tmp_path, records, found, old)
    assert (records.fail, records.changes) == (True, changes)


def owned(folder: Path) -> str:
    """Make an ALU of the same appliance."""

    async def claimed(sp: StorageProcessor) -> None:
        await sp.attach(str(folder / "disk.img"), 20 << 20)
        await sp.claim(str(folder / "disk.img"))

    on(folder, MemoryRecords(), claimed)
    return "belongs to this appliance already: attach it without legacy=yes"


def foreign(folder: Path) -> str:
    """Make an ALU of another appliance."""

    async def claimed() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, "another appliance")
            await inventory.attach(str(folder / "disk.img"), 20 << 20)
            await inventory.claim(str(folder / "disk.img"), force=False)

    asyncio.run(claimed())
    return "holds an appliance's metadata, which hosts could overwrite: claimed by appliance another appliance"


def partial(folder: Path) -> str:
    (folder / "disk.img").write_bytes(bytes(20_000_001))
    return "has 20000001 bytes; a legacy alu has 4096 at least, in whole sectors of 512"


def absent(folder: Path) -> str:
    return "does not exist"


@pytest.mark.parametrize("make", [owned, foreign, partial, absent])
def test_what_can_not_be_a_legacy_alu_is_refused(tmp_path: Path, make: Callable[[Path], str]) -> None:
    message, path = make(tmp_path), tmp_path / "disk.img"
    records = MemoryRecords()

    async def scenario(sp: StorageProcessor) -> None:
        for _ in range(2):  # a lock that was kept would change what is said
            with pytest.raises(UsageError, match=message) as refused:
                await sp.attach_legacy(str(path))
            assert "\n" not in str(refused.value)
        assert sp.alus() == []

    on(tmp_path, records, scenario)
    assert records.kept == {}


def test_what_hosts_write_does_not_turn_an_alu_into_another(tmp_path: Path) -> None:
    """R5: a host may lay anything on its volume, another appliance's label included."""
    old, records = tmp_path / "old.img", MemoryRecords()
    owned(tmp_path)
    old_data(old, 20 << 20)

    async def made(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp))

    async def found(sp: StorageProcessor) -> None:
        assert [v.state for v in sp.volumes()] == [VolumeState.ONLINE]

    on(tmp_path, records, made, old)
    with old.open("r+b") as handle:
        handle.write((tmp_path / "disk.img").read_bytes())
    on(tmp_path, records, found, old)


def test_a_direct_volume_of_a_file_is_read_written_and_flushed(tmp_path: Path) -> None:
    """R5: after a restart, too; a legacy one takes all commands."""
    old, records = tmp_path / "old.img", MemoryRecords()
    old_data(old)

    async def made(sp: StorageProcessor) -> None:
        await sp.create_volume(whole(sp, layout="direct"))

    async def found(sp: StorageProcessor) -> None:
        [volume] = sp.volumes()
        unit = sp._volumes.unit(volume.wwn)
        assert unit is not None
        assert (unit.commands, unit.passer) == (PLAIN_COMMANDS, None)
        assert await read(sp, volume.wwn, 0, 8) == noise(4096)
        await sp.delete_volume(volume.wwn)
        legacy = sp._volumes.unit((await sp.create_volume(whole(sp))).wwn)
        assert legacy is not None
        assert legacy.commands is None

    on(tmp_path, records, made, old)
    on(tmp_path, records, found, old)
