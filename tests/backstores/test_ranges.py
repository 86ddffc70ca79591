"""Range locks: who waits for whom."""

from __future__ import annotations

import asyncio

from backstores.ranges import RangeLocks


def run_in_order(*ranges: tuple[int, int]) -> list[str]:
    """Ask for all ranges at once, end them one at a time, and tell what happened in which order."""

    async def scenario() -> list[str]:
        locks, log = RangeLocks(), []

        async def worker(number: int, lba: int, blocks: int) -> None:
            async with locks.hold(lba, blocks):
                log.append(f"+{number}")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                log.append(f"-{number}")

        await asyncio.gather(*(worker(n, *r) for n, r in enumerate(ranges)))
        assert not locks.busy
        return log

    return asyncio.run(scenario())


def test_disjoint_ranges_are_held_together() -> None:
    assert run_in_order((0, 8), (8, 8)) == ["+0", "+1", "-0", "-1"]


def test_overlapping_ranges_are_held_one_after_the_other() -> None:
    assert run_in_order((0, 8), (7, 8)) == ["+0", "-0", "+1", "-1"]


def test_a_large_hold_is_not_overtaken_by_later_small_ones() -> None:
    assert run_in_order((0, 1), (0, 100), (50, 1)) == ["+0", "-0", "+1", "-1", "+2", "-2"]


def test_a_cancelled_waiter_lets_the_next_one_in() -> None:
    async def scenario() -> bool:
        locks = RangeLocks()
        async with locks.hold(0, 8):

            async def wait() -> None:
                async with locks.hold(0, 8):
                    raise AssertionError("granted while held")

            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.gather(waiter, return_exceptions=True)
        async with locks.hold(0, 8):
            return not waiter.cancelled() or locks.busy

    assert asyncio.run(scenario())
