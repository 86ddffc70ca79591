"""ALUs come and go, fail, or are older copies of themselves: the GS set tells, and mends itself (R4, M5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance import globalset
from appliance.globalset import ReadOnlyError
from appliance.messages import GsState, VolumeState
from backstores.alu.base import AluOp
from backstores.errors import UsageError
from backstores.objects import MIB
from tests.support.globalset import SIX, bring, copied, create, made, members, pull, running, states
from tests.support.memory_alus import SIZE


def test_a_member_that_fails_is_replaced_by_an_alu_that_is_none(tmp_path: Path) -> None:
    """R4: the set mends itself."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX, "a6")
        async with running(tmp_path, disks) as sp:
            assert members(sp) == set(SIX)
            pull(disks, ["a1"])
            await sp._gs.watch()
            assert members(sp) == {*SIX, "a6"} - {"a1"}

    asyncio.run(scenario())


def test_an_alu_that_is_detached_is_no_member_any_more(tmp_path: Path) -> None:
    """R4: the last takes the set with it, and brings it back."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1")
        async with running(tmp_path, disks) as sp:
            await sp.delete_volume(sp.volumes()[0].wwn)
            await sp.detach("a0")
            assert members(sp) == {"a1"}
            await sp.detach("a1")
            assert sp.global_set().state is GsState.NONE
            await bring(sp, "a1")
            await bring(sp, "a0")
            assert members(sp) == {"a0", "a1"}
            assert states(sp) == {"a1": "owned", "a0": "owned"}

    asyncio.run(scenario())


def test_an_alu_that_is_missing_can_be_struck_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        gone = disks.pop("a2")
        async with running(tmp_path, disks) as sp:
            assert members(sp) == {"a0", "a1", "a2"}
            await sp.forget("a2")
            assert members(sp) == {"a0", "a1"}
            disks["a2"] = gone
            await bring(sp, "a2")
            assert states(sp)["a2"] == "owned", "it is no older than it was"

    asyncio.run(scenario())


@pytest.mark.parametrize("cleanly", [True, False], ids=["clean-stop", "crash"])
def test_an_older_copy_of_an_alu_does_not_bring_a_deleted_volume_back(tmp_path: Path, cleanly: bool) -> None:
    """R4: the disk is replaced by what it was an hour ago; the others have gone on since."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        old = copied(disks["a0"])
        async with running(tmp_path, disks, cleanly=cleanly) as sp:
            await sp.delete_volume(sp.volumes()[0].wwn)
        disks["a0"] = old
        async with running(tmp_path, disks) as sp:
            assert states(sp) == {"a0": "stale", "a1": "owned", "a2": "owned"}
            assert sp.volumes() == []
            assert sp.global_set().state is GsState.READY
            with pytest.raises(UsageError, match="an older copy"):
                await sp.claim("a0")
            await sp.claim("a0", force=True)
            assert states(sp)["a0"] == "owned"
            assert members(sp) == {"a0", "a1", "a2"}

    asyncio.run(scenario())


def test_a_copy_made_while_it_ran_is_told_by_its_objects(tmp_path: Path) -> None:
    """R4: nothing was fenced between the copy and the clean stop; the roster knows how far the objects had come."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        async with running(tmp_path, disks) as sp:
            old = copied(disks["a0"])
            await sp.delete_volume(sp.volumes()[0].wwn)
        disks["a0"] = old
        async with running(tmp_path, disks) as sp:
            assert states(sp)["a0"] == "stale"
            assert sp.volumes() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("at", [8 << 10, 12 << 10, 5 * MIB, SIZE - (4 << 10)], ids=["label", "mdr", "table", "tail"])
def test_an_alu_with_one_damaged_sector_is_no_older_copy(tmp_path: Path, at: int) -> None:
    """R1, R4: what has other copies must not take the volumes on an ALU off line after a clean stop."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        disks["a0"].content[at + 100] ^= 1
        async with running(tmp_path, disks) as sp:
            assert set(states(sp).values()) == {"owned"}
            assert [volume.state for volume in sp.volumes()] == [VolumeState.ONLINE]

    asyncio.run(scenario())


@pytest.mark.parametrize("cleanly", [True, False], ids=["clean-stop", "crash"])
def test_a_copy_made_while_it_ran_is_told_by_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleanly: bool
) -> None:
    """R4: no object has changed since, only data. A clean stop takes a new epoch; so does a half hour."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        async with running(tmp_path, disks, cleanly=cleanly) as sp:
            old = copied(disks["a0"])
            if not cleanly:
                monkeypatch.setattr(globalset, "EPOCH_LASTS_S", 0.0)
                await sp._gs.watch()
        disks["a0"] = old
        async with running(tmp_path, disks) as sp:
            assert states(sp)["a0"] == "stale"

    asyncio.run(scenario())


def test_an_epoch_lasts_for_a_while(tmp_path: Path) -> None:
    """It costs writes on every ALU."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        async with running(tmp_path, disks) as sp:
            epoch = sp.global_set().epoch
            await sp._gs.watch()
            assert sp.global_set().epoch == epoch

    asyncio.run(scenario())


def test_a_stale_copy_that_comes_late_is_not_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        old = copied(disks["a0"])
        async with running(tmp_path, disks) as sp:
            await sp.delete_volume(sp.volumes()[0].wwn)
        async with running(tmp_path, disks, "a1", "a2") as sp:
            disks["a0"] = old
            await bring(sp, "a0")
            assert states(sp)["a0"] == "stale"
            assert sp.volumes() == []
            await sp.detach("a0")

    asyncio.run(scenario())


def test_an_alu_that_dies_while_it_is_fenced_holds_up_no_other(tmp_path: Path) -> None:
    """C3: its labels can't be read any more when the appliance has just taken it over."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        dying = disks["a2"]
        flushed = dying.sync

        async def die() -> int:
            for at in (4096, dying.size_bytes - 8192):
                dying.fail(AluOp.READ, offset=at, length=8192)
            return await flushed()

        dying.sync = die  # type: ignore[method-assign]
        async with running(tmp_path, disks) as sp:
            assert states(sp) == {"a0": "owned", "a1": "owned", "a2": "damaged"}
            await create(sp, "w", "a0")
            assert sp.global_set().state is GsState.READY

    asyncio.run(scenario())


def test_an_older_appliance_is_refused_by_the_alus(tmp_path: Path) -> None:
    """M5: two of one SUSID at once, where no lock of a file keeps the second off: the one that started first stops."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        (tmp_path / "b").mkdir()
        async with (
            running(tmp_path, disks, cleanly=False) as older,
            running(tmp_path / "b", disks, cleanly=False) as newer,
        ):
            with pytest.raises(ReadOnlyError, match="taken over by epoch"):
                await create(older, "w", "a0")
            await create(newer, "w", "a0")
            assert newer.global_set().state is GsState.READY

    asyncio.run(scenario())


def test_an_alu_that_could_not_be_fenced_at_the_start_is_fenced_later(tmp_path: Path) -> None:
    """M5: until then nothing on it is changed; from then on the older appliance changes nothing any more."""

    async def scenario() -> None:
        disks = await made(tmp_path, "a0", "a1", "a2")
        (tmp_path / "b").mkdir()
        async with running(tmp_path, disks, cleanly=False) as older:
            fault = disks["a0"].fail(AluOp.WRITE, offset=12 << 10, length=8 << 10)
            async with running(tmp_path / "b", disks, cleanly=False) as newer:
                disks["a0"].mend(fault)
                volume = await create(newer, "w", "a0")
                refused = await older._inventory.by_path("a0").commit(())
                assert refused is not None
                assert "taken over by epoch" in str(refused)
        async with running(tmp_path, disks) as sp:
            assert volume.wwn in {found.wwn for found in sp.volumes()}

    asyncio.run(scenario())
