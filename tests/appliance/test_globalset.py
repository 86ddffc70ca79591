"""The appliance and its GS set: any minority of its members may go, below a majority only data goes on (R4, M4)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.globalset import ReadOnlyError
from appliance.messages import GsState
from appliance.sp import StorageProcessor
from backstores.alu.memory import MemoryDriver
from backstores.errors import TiergateError, UsageError
from tests.support.globalset import (
    SIX,
    bring,
    create,
    gs_writes,
    made,
    members,
    pull,
    push,
    running,
    states,
    write_and_read,
)
from tests.support.gs import alu
from tests.support.memory_alus import SIZE, blank_disks

Change = Callable[[StorageProcessor], Awaitable[object]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 6, 8])
def test_the_set_is_made_of_the_alus_there_are(tmp_path: Path, count: int) -> None:
    """R4: none without ALUs, one of one, six of more than that; the listing tells who is a member."""

    async def scenario() -> None:
        disks = blank_disks(*[f"a{number}" for number in range(count)]) if count else {}
        async with running(tmp_path, disks) as sp:
            status = sp.global_set()
            assert status.state is (GsState.READY if count else GsState.NONE)
            assert len(status.members) == min(count, 6)
            assert {one.path for one in sp.alus() if one.gs_member} == members(sp)
            epoch = status.epoch  # a clean stop takes one, and a start
        async with running(tmp_path, disks) as sp:
            assert len(sp.global_set().members) == min(count, 6)
            assert sp.global_set().epoch == (epoch + 2 if count else 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", [*itertools.combinations(SIX, 1), *itertools.combinations(SIX, 2)], ids="-".join)
def test_any_minority_of_members_may_be_pulled_while_it_runs(tmp_path: Path, gone: tuple[str, ...]) -> None:
    """M4: the configuration can still be changed, and the set goes on without them."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        async with running(tmp_path, disks) as sp:
            pull(disks, gone)
            stays = [path for path in SIX if path not in gone]
            volume = await create(sp, "w", stays[0])
            await write_and_read(sp, volume.wwn)
            await sp.delete_volume(volume.wwn)
            assert sp.global_set().state is GsState.READY
            assert set(stays) <= members(sp)

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", [*itertools.combinations(SIX, 1), *itertools.combinations(SIX, 2)], ids="-".join)
def test_any_minority_of_members_may_be_away_at_the_start(tmp_path: Path, gone: tuple[str, ...]) -> None:
    """M4: as above; when they return they are taken in again, and none of them is older than it should be."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        away = {path: disks.pop(path) for path in gone}
        async with running(tmp_path, disks) as sp:
            assert sp.global_set().state is GsState.READY
            await create(sp, "w", next(iter(disks)))
            disks.update(away)
            for path in gone:
                await bring(sp, path)
            assert members(sp) == set(SIX)
            assert set(states(sp).values()) == {"owned"}

    asyncio.run(scenario())


CHANGES: dict[str, Change] = {
    "create": lambda sp: create(sp, "w", "a0"),
    "grow": lambda sp: sp.replace_volume(sp.volumes()[0].objects),
    "delete": lambda sp: sp.delete_volume(sp.volumes()[0].wwn),
    "claim": lambda sp: sp.claim("new"),
    "detach": lambda sp: sp.detach("a1"),
    "forget": lambda sp: sp.forget("a5"),
}


@pytest.mark.parametrize("starting", [False, True], ids=["while-it-runs", "at-the-start"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_below_a_majority_only_data_goes_on(tmp_path: Path, change: Change, starting: bool) -> None:
    """M4: the refusal names the missing members and what to do; when they return everything goes on."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        disks["new"] = MemoryDriver(SIZE, path="new")
        gone = ("a2", "a3", "a4", "a5")
        away = {path: disks.pop(path) for path in gone} if starting else {}
        there = [path for path in disks if path != "new"]
        async with running(tmp_path, disks, *there) as sp:
            await bring(sp, "new")
            if not starting:
                pull(disks, gone)
            before = sp.volumes()
            with pytest.raises(ReadOnlyError) as refusal:
                await change(sp)
            assert "read only, data goes on" in str(refusal.value)
            assert all(f"alu '{path}'" in str(refusal.value) for path in gone)
            assert "`/gs reform force=yes`" in str(refusal.value)
            assert sp.volumes() == before
            assert sp.global_set().state is GsState.READ_ONLY
            await write_and_read(sp, before[0].wwn)
            if starting:
                disks.update(away)
                await bring(sp, "a2")
                with pytest.raises(ReadOnlyError):
                    await change(sp)
                await bring(sp, "a3")
            else:
                push(disks, gone)
            await create(sp, "x", "a0")
            assert sp.global_set().state is GsState.READY

    asyncio.run(scenario())


def test_a_watch_notices_what_nobody_asks_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The state is told, once, without anybody changing anything."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        async with running(tmp_path, disks) as sp:
            pull(disks, SIX[:4])
            for _ in range(3):
                await sp._gs.watch()
            assert sp.global_set().state is GsState.READ_ONLY
            assert sum("read only" in record.message for record in caplog.records) == 1
            push(disks, SIX)
            await sp._gs.watch()
            assert sp.global_set().state is GsState.READY

    asyncio.run(scenario())


def test_a_running_appliance_looks_after_its_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: by itself, in the round in which it clears dirty regions."""
    monkeypatch.setattr("appliance.sp.CLEAN_INTERVAL_S", 0)

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        async with running(tmp_path, disks) as sp:
            rounds = asyncio.create_task(sp._clean())
            pull(disks, ["a5"])
            while "a5" in members(sp):
                assert not rounds.done()
                await asyncio.sleep(0)
            assert sp.global_set().state is GsState.READY
            rounds.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_set_that_can_not_be_looked_after_ends_no_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C3: such as one whose roster has outgrown its room. It is logged once, and the next look finds it mended."""

    async def full() -> None:
        raise UsageError("what the GS set keeps of 400 alus takes too much room")

    async def scenario() -> None:
        async with running(tmp_path, await made(tmp_path, *SIX)) as sp:
            with monkeypatch.context() as broken:
                broken.setattr(sp._gs._store, "tend", full)
                await sp._gs.watch()
                await sp._gs.watch()
            await sp._gs.watch()

    caplog.set_level("INFO")
    asyncio.run(scenario())
    assert caplog.text.count("400 alus") == 1
    assert "agrees again" in caplog.text


def test_a_change_that_does_not_concern_the_set_does_not_write_it(tmp_path: Path) -> None:
    """Making a volume must not cost a write on six disks."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        async with running(tmp_path, disks) as sp:
            before = gs_writes(disks)
            volume = await create(sp, "w", "a0")
            await sp.delete_volume(volume.wwn)
            assert gs_writes(disks) == before

    asyncio.run(scenario())


def test_a_person_may_go_on_without_members_that_are_lost(tmp_path: Path) -> None:
    """M4: reform; the lost ones may return all the same, and count as what they are."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        away = {path: disks.pop(path) for path in SIX[2:]}
        async with running(tmp_path, disks) as sp:
            assert sp.global_set().state is GsState.READ_ONLY
            await sp.reform_global_set()
            assert members(sp) == {"a0", "a1"}
            await create(sp, "w", "a1")
            disks.update(away)
            for path in away:
                await bring(sp, path)
            assert members(sp) == set(SIX)
            assert set(states(sp).values()) == {"owned"}

    asyncio.run(scenario())


def test_there_is_nothing_to_form_a_set_of_without_alus(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, {}) as sp:
            with pytest.raises(UsageError, match="attach one"):
                await sp.reform_global_set()

    asyncio.run(scenario())


def test_what_belongs_to_legacy_alus_is_kept(tmp_path: Path) -> None:
    """R5: over a restart, with a minority of the members gone; below a majority nothing of it changes."""

    async def scenario() -> None:
        disks = await made(tmp_path, *SIX)
        async with running(tmp_path, disks) as sp:
            name = sp.alus()[0].wwn
            assert name is not None
            await sp._gs.save(name, b"first")
            await sp._gs.save(name, b"second")
        for path in SIX[:2]:
            del disks[path]
        async with running(tmp_path, disks) as sp:
            assert sp._gs.load() == {name: b"second"}
            pull(disks, SIX[2:])
            with pytest.raises(ReadOnlyError):
                await sp._gs.save(name, None)
            assert sp._gs.load() == {name: b"second"}
            push(disks, SIX[2:])
            await sp._gs.save(name, None)
            assert sp._gs.load() == {}

    asyncio.run(scenario())


def test_without_any_alu_there_is_no_place_for_a_legacy_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, {}) as sp:
            with pytest.raises(TiergateError, match="attach one first"):
                await sp._gs.save(alu(0), b"")

    asyncio.run(scenario())
