"""A volume at work: both ways in, failures of legs, and what a host is told."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest

from backstores.alu.base import AluOp
from backstores.block import NoSpace, Offline, Op, OutOfRange, ReadFailed, Request, WriteFailed
from backstores.objects import LegState, MirrorObject, StripeObject
from backstores.volume.volume import Volume
from tests.support.volumes import BLOCK_BYTES, CHUNK_BLOCKS, DATA, Machine

IN_SYNC, FAILED = LegState.IN_SYNC, LegState.FAILED


async def write(volume: Volume, lba: int, data: bytes, fua: bool = False) -> None:
    await volume.submit(Request(Op.WRITE, lba, len(data) // BLOCK_BYTES, memoryview(data), fua))


async def read(volume: Volume, lba: int, blocks: int) -> bytes:
    data = bytearray(blocks * BLOCK_BYTES)
    await volume.submit(Request(Op.READ, lba, blocks, memoryview(data)))
    return bytes(data)


def pattern(seed: int, blocks: int) -> bytes:
    return random.Random(seed).randbytes(blocks * BLOCK_BYTES)


@pytest.mark.parametrize("immediate", [True, False], ids=["page cache", "everything waits"])
def test_random_requests_agree_with_a_byte_array_and_legs_stay_equal(immediate: bool) -> None:
    """R7, D1: a stripe over mirrors, by the hot path where it will and the general path where it must."""

    async def scenario() -> None:
        machine = Machine(immediate=immediate)
        chance = random.Random(7)
        async with machine.volume() as volume:
            model = bytearray(volume.blocks * BLOCK_BYTES)
            hot = 0
            for _ in range(1500):
                blocks = chance.choice([1, 8, 8, CHUNK_BLOCKS, 3 * CHUNK_BLOCKS + 5])
                lba = chance.randrange(volume.blocks - blocks)
                low, high = lba * BLOCK_BYTES, (lba + blocks) * BLOCK_BYTES
                match chance.randrange(8):
                    case 0 | 1 | 2:
                        data = chance.randbytes(blocks * BLOCK_BYTES)
                        done = volume.write_now(lba, blocks, memoryview(data))
                        hot += done
                        if not done:
                            await write(volume, lba, data)
                        model[low:high] = data
                    case 3:
                        await volume.submit(Request(Op.DISCARD, lba, blocks))
                        model[low:high] = bytes(high - low)
                    case _:
                        found = bytearray(high - low)
                        if not volume.read_now(lba, blocks, memoryview(found)):
                            found = bytearray(await read(volume, lba, blocks))
                        assert found == model[low:high], f"lba {lba}, {blocks} blocks"
            assert (hot > 300) is immediate
            for mirror in (0, 1):
                assert machine.data(mirror, 0) == machine.data(mirror, 1)

    asyncio.run(scenario())


def test_a_write_that_a_leg_misses_is_acknowledged_after_the_leg_is_recorded_as_failed() -> None:
    """R27, D3: the volume goes on without the leg, and a restart will know."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            machine.leg(0, 1).fail(AluOp.WRITE, offset=DATA)
            data = pattern(1, 8)
            await write(volume, 0, data)
            assert machine.leg_states == [IN_SYNC, FAILED, IN_SYNC, IN_SYNC]
            [changed] = machine.persisted
            assert [obj.fail_sequence for obj in changed if isinstance(obj, MirrorObject)] == [1]
            assert await read(volume, 0, 8) == data
            seen = len(machine.leg(0, 1).log)
            await write(volume, 0, pattern(2, 8))
            assert len(machine.leg(0, 1).log) == seen, "a failed leg is left alone"

    asyncio.run(scenario())


def test_a_block_that_one_leg_can_not_read_comes_from_the_other() -> None:
    """R27: a read error costs the host nothing."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            machine.leg(0, 0).fail(AluOp.READ)
            assert not volume.read_now(0, 8, memoryview(bytearray(8 * BLOCK_BYTES)))
            assert await read(volume, 0, 8) == pattern(1, 8)
            assert machine.leg_states[:2] == [FAILED, IN_SYNC]

    asyncio.run(scenario())


def test_without_any_good_copy_the_host_learns_the_first_bad_block() -> None:
    """The LBA in the error counts on the volume, not on the leg."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            for leg in (0, 1):
                machine.leg(1, leg).fail(AluOp.READ, offset=DATA + 3 * BLOCK_BYTES, length=BLOCK_BYTES)
            with pytest.raises(ReadFailed) as caught:
                await read(volume, 0, 4 * CHUNK_BLOCKS)
            assert caught.value.lba == CHUNK_BLOCKS + 3  # the second mirror's fourth block

    asyncio.run(scenario())


def test_a_write_no_leg_takes_fails_and_keeps_one_leg() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            for leg in (0, 1):
                machine.leg(0, leg).fail(AluOp.WRITE, offset=DATA)
            with pytest.raises(WriteFailed):
                await write(volume, 0, pattern(1, 8))
            assert IN_SYNC in machine.leg_states[:2]

    asyncio.run(scenario())


@pytest.mark.parametrize("full", [(0,), (1,), (0, 1)], ids=["first leg full", "second leg full", "both full"])
def test_a_full_disk_fails_the_write_and_leaves_the_legs_equal_and_in_sync(full: tuple[int, ...]) -> None:
    """A full disk is the host's to know (7/27/07), no reason to give a leg up."""

    async def scenario() -> None:
        machine = Machine(immediate=False)
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            for leg in full:
                alu = machine.leg(0, leg)
                alu.room_bytes = len(alu.mapped) * 4096
            with pytest.raises(NoSpace):
                await write(volume, 0, pattern(2, CHUNK_BLOCKS))
            assert machine.leg_states == [IN_SYNC] * 4
            assert machine.data(0, 0) == machine.data(0, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("first", "second"),
    [((), (0,)), ((0, 1), (0,)), ((0,), (3,)), ((3,), (0,)), ((0, 2), (1, 3)), ((1, 3), (0, 2))],
    ids=["nothing-some", "more-less", "begin-end", "end-begin", "by-turns", "by-turns-the-other-way"],
)
def test_legs_that_have_room_in_different_places_are_equal_after_a_write_that_failed(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    """D1: what one leg has and the other has no room for is taken back; no leg is given up for a full disk."""

    async def scenario() -> None:
        machine = Machine(immediate=False)
        async with machine.volume() as volume:
            await write(volume, 256 * CHUNK_BLOCKS, pattern(1, 1))  # its bitmap has room
            for leg, pages in enumerate((first, second)):
                alu = machine.leg(0, leg)
                alu.mapped |= {DATA // 4096 + page for page in pages}
                alu.room_bytes = len(alu.mapped) * 4096
            with pytest.raises(NoSpace):
                await write(volume, 0, pattern(2, 4 * CHUNK_BLOCKS))
            assert machine.leg_states == [IN_SYNC] * 4
            assert machine.data(0, 0) == machine.data(0, 1)

    asyncio.run(scenario())


def test_fua_is_durable_on_every_leg_when_it_is_acknowledged() -> None:
    """D1: what FUA acknowledged survives a power cut on each leg."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8), fua=True)
            for leg in (0, 1):
                machine.leg(0, leg).crash()
                assert machine.data(0, leg).startswith(pattern(1, 8))

    asyncio.run(scenario())


def test_a_flush_reaches_every_leg() -> None:
    """D1: SYNCHRONIZE CACHE covers every leg."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 2 * CHUNK_BLOCKS))
            await volume.submit(Request(Op.FLUSH, 0, 0))
            for mirror, leg in ((0, 0), (0, 1), (1, 0), (1, 1)):
                machine.leg(mirror, leg).crash()
            assert await read(volume, 0, 2 * CHUNK_BLOCKS) == pattern(1, 2 * CHUNK_BLOCKS)

    asyncio.run(scenario())


def test_a_leg_that_can_not_be_flushed_has_failed() -> None:
    """D1: what a failed flush lost may not be served any more."""

    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(1, 8))
            machine.leg(0, 0).fail(AluOp.FLUSH, times=1)
            await volume.submit(Request(Op.FLUSH, 0, 0))
            assert machine.leg_states[:2] == [FAILED, IN_SYNC]

    asyncio.run(scenario())


def test_overlapping_writes_end_one_after_the_other_on_all_legs() -> None:
    """D4 within one storage processor: two writers at once never leave the legs different."""

    async def scenario() -> None:
        machine = Machine(immediate=False)
        async with machine.volume() as volume:
            await write(volume, 0, pattern(0, 8))
            gate = machine.leg(0, 1).hold(AluOp.WRITE)
            first = asyncio.create_task(write(volume, 0, pattern(1, 8)))
            await gate.reached.wait()
            second = asyncio.create_task(write(volume, 4, pattern(2, 8)))
            await asyncio.sleep(0)
            assert not volume.write_now(4, 8, memoryview(pattern(3, 8))), "the hot path must not overtake"
            gate.open()
            await asyncio.gather(first, second)
            assert machine.data(0, 0) == machine.data(0, 1)
            assert (await read(volume, 4, 8)) == pattern(2, 8)

    asyncio.run(scenario())


def test_what_holds_a_range_keeps_other_writers_out_and_may_write_itself() -> None:
    async def scenario() -> None:
        machine = Machine()
        async with machine.volume() as volume:
            await write(volume, 0, pattern(0, 8))
            async with volume.hold(0, 8) as held:
                other = asyncio.create_task(write(volume, 0, pattern(2, 8)))
                await asyncio.sleep(0)
                data = pattern(1, 8)
                await held.submit(Request(Op.WRITE, 0, 8, memoryview(data)))
                assert await read(volume, 0, 8) == data
            await other
            assert await read(volume, 0, 8) == pattern(2, 8)

    asyncio.run(scenario())


def test_a_range_past_the_end_is_refused_at_the_door() -> None:
    async def scenario() -> None:
        async with Machine().volume() as volume:
            with pytest.raises(OutOfRange, match=r"lba 8191 \+ 2 blocks is past the end \(8192\)"):
                await read(volume, 8191, 2)

    asyncio.run(scenario())


def test_a_leg_whose_failure_can_not_be_recorded_takes_the_volume_off_line_for_the_request() -> None:
    """D3: no acknowledgement without a durable record."""

    async def scenario() -> None:
        machine = Machine()

        async def refuse(_: object) -> None:
            raise Offline("no alu takes it")

        machine.persist = refuse  # type: ignore[method-assign]
        async with machine.volume() as volume:
            machine.leg(0, 1).fail(AluOp.WRITE, errno.EIO, offset=DATA)
            with pytest.raises(Offline, match="can't be recorded"):
                await write(volume, 0, pattern(1, 8))

    asyncio.run(scenario())


def test_a_closed_volume_refuses_everything() -> None:
    async def scenario() -> None:
        async with Machine().volume() as volume:
            await volume.close()
            assert not volume.read_now(0, 1, memoryview(bytearray(BLOCK_BYTES)))
            with pytest.raises(Offline):
                await read(volume, 0, 1)

    asyncio.run(scenario())


def test_what_is_optimal_is_whole_rows_and_a_mebibyte_if_that_can_be() -> None:
    """Linux takes it for the largest command to send; a page or a short row would cut its requests to pieces."""
    machine = Machine()
    [stripe] = [obj for obj in machine.objects if isinstance(obj, StripeObject)]
    row_blocks = stripe.chunk_blocks * len(stripe.children)

    async def scenario() -> None:
        async with machine.volume() as volume:
            assert volume.optimal_blocks % row_blocks == 0
            assert (1 << 20) - row_blocks * BLOCK_BYTES < volume.optimal_blocks * BLOCK_BYTES <= 1 << 20

    asyncio.run(scenario())
