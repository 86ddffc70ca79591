"""A unit of a target as an ALU: what a driver does, over two paths (R1, R12)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from backstores.alu.base import AluError, AluFull, AluOp, ByteRun, Kind
from backstores.alu.location import disk_of
from backstores.alu.remote import RemoteLun, open_remote
from backstores.block import NoSpace, Op, Request, Run, WriteFailed
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.iscsi.initiator.questions import UnitFacts
from backstores.iscsi.initiator.target import RemoteTarget
from backstores.scsi.target import TargetNexus
from backstores.scsi.unit import LogicalUnit
from tests.support.cable import cables
from tests.support.engines import noise, view
from tests.support.remote import QUICK, house, make_unit, reached, wwn_of

PAGE = 4096
Scenario = Callable[[Engine, RemoteLun, LogicalUnit], Awaitable[None]]


def with_lun(scenario: Scenario, block_bytes: int = 512, **facts: Any) -> None:
    """Run a scenario with a unit of 4 MiB at LUN 300; ``facts`` replace what it says of itself."""

    async def run() -> None:
        unit = make_unit(7, (4 << 20) // block_bytes, block_bytes)
        async with house({300: unit}) as at, reached(at) as target, Engine(BackendChoice.THREADS) as engine:
            driver = await open_remote(target, 300, "a0 by sp2", wwn_of(7))
            if facts:
                driver = with_facts(target, driver, **facts)
            await scenario(engine, driver, unit)

    asyncio.run(run())


def with_facts(target: RemoteTarget, driver: RemoteLun, **facts: Any) -> RemoteLun:
    """Make a driver that takes its unit for a lesser one."""
    return RemoteLun(target, 300, replace(driver._facts, **facts), driver.path, driver.wwn)


def content(unit: LogicalUnit) -> bytearray:
    return unit.device.content  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_it_is_described_as_it_is(block_bytes: int) -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        assert (lun.path, lun.kind, lun.wwn) == ("a0 by sp2", Kind.REMOTE, wwn_of(7))
        assert (lun.size_bytes, lun.sector_bytes, lun.physical_bytes) == (4 << 20, block_bytes, 4096)
        assert disk_of(lun) == "a0 by sp2"
        assert not lun.read_now(0, view(bytes(PAGE)))
        assert not lun.write_now(0, view(bytes(PAGE)))

    with_lun(scenario, block_bytes)


@pytest.mark.parametrize(
    "lengths",
    [[512], [1 << 20], [512] * 40, [100, 412], [1, 4095, 4096], [65536] * 8],
    ids=["a block", "1 MiB", "forty views", "uneven views", "a byte first", "stripe chunks"],
)
@pytest.mark.parametrize("durable", [False, True])
def test_views_are_read_and_written(lengths: list[int], durable: bool) -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        data = noise(sum(lengths))
        flushes = unit.device.flushes  # type: ignore[attr-defined]
        await engine.write(lun, PAGE, cut(view(data), lengths), durable=durable)
        assert bytes(content(unit)[PAGE : PAGE + len(data)]) == data
        into = view(bytes(len(data)))
        await engine.read(lun, PAGE, cut(into, lengths))
        assert into == data
        await engine.flush(lun)
        assert unit.device.flushes > flushes  # type: ignore[attr-defined]

    with_lun(scenario)


def cut(whole: memoryview, lengths: list[int]) -> list[memoryview]:
    """Cut a view into views of some lengths."""
    views, at = [], 0
    for length in lengths:
        views.append(whole[at : at + length])
        at += length
    return views


def test_a_durable_write_says_so() -> None:
    """D1: FUA, with its own command; the others go without."""
    seen: list[bool] = []

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        real = unit.device.submit

        async def submit(request: Request) -> list[Run]:
            if request.op is Op.WRITE:
                seen.append(request.fua)
            return await real(request)

        unit.device.submit = submit  # type: ignore[method-assign]
        unit.device.immediate = False  # type: ignore[attr-defined]
        for durable in (True, False):
            await engine.write(lun, 0, [view(bytes(PAGE))], durable=durable)

    with_lun(scenario)
    assert seen == [True, False]


def test_transfers_keep_to_what_the_target_takes() -> None:
    """A target that moves 8 blocks at once gets no command for more."""
    seen: list[int] = []

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        real = unit.device.submit

        async def submit(request: Request) -> list[Run]:
            seen.append(request.blocks)
            return await real(request)

        unit.device.immediate = False  # type: ignore[attr-defined]
        unit.device.submit = submit  # type: ignore[method-assign]
        await engine.write(lun, 0, [view(noise(10 * PAGE + 512))])
        into = view(bytes(10 * PAGE + 512))
        await engine.read(lun, 0, [into])
        assert into == noise(10 * PAGE + 512)
        assert not lun.begin_read(0, view(bytes(2 * PAGE)), lambda code: None)

    with_lun(scenario, transfer_blocks=8)
    assert seen == [8] * 10 + [1] + [8] * 10 + [1]


def test_begun_transfers_call_back() -> None:
    """Without a task of the event loop; what a command can't do at once is left to the general way."""

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        data, into = view(noise(PAGE)), view(bytes(PAGE))
        assert lun.begin_write(PAGE, data, codes.put_nowait)
        assert codes.empty()
        assert await codes.get() == 0
        assert lun.begin_read(PAGE, into, codes.put_nowait)
        lun.flush_soon()
        assert await codes.get() == 0
        assert into == data
        assert lun.begin_read(lun.size_bytes, into, codes.put_nowait)
        assert await codes.get() == errno.EINVAL
        assert not lun.begin_read(100, into, codes.put_nowait)
        assert not lun.begin_read(0, into[:100], codes.put_nowait)
        assert not lun.begin_read(0, into[:0], codes.put_nowait)

    with_lun(scenario)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"unmap_blocks": 1},
        {"unmap_blocks": 0},
        {"write_same_blocks": 3},
        {"unmap_blocks": 0, "write_same_blocks": 1},
    ],
    ids=["as it is", "a block at a time", "no unmap", "three at a time", "no unmap, one at a time"],
)
@pytest.mark.parametrize("zeroing", [False, True], ids=["discard", "zero"])
def test_space_is_given_back_or_zeroed(facts: dict[str, int], zeroing: bool) -> None:
    """Either way it reads as zeros, and nothing beside it changes."""

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        content(unit)[:] = b"x" * len(content(unit))
        await (engine.zero if zeroing else engine.discard)(lun, PAGE, 2 * PAGE)
        assert bytes(content(unit)[: 4 * PAGE]) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE

    with_lun(scenario, **facts)


def test_zeros_are_written_where_there_is_no_write_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older targets: by plain writes, and by SYNCHRONIZE CACHE(10)."""
    refuse(monkeypatch, 0x93, 0x91)

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        content(unit)[:] = b"x" * len(content(unit))
        await engine.zero(lun, PAGE, 3 << 20)
        assert bytes(content(unit)[: PAGE + (3 << 20) + 1]) == b"x" * PAGE + bytes(3 << 20) + b"x"
        await engine.flush(lun)
        assert unit.device.flushes == 1  # type: ignore[attr-defined]

    with_lun(scenario)


def refuse(monkeypatch: pytest.MonkeyPatch, *opcodes: int) -> None:
    """Have units know no commands with these operation codes."""
    real = TargetNexus.execute

    async def execute(nexus: TargetNexus, lun: int, command: Any) -> Any:
        if command.cdb[0] in opcodes:
            command.cdb = bytes([0xEE, *command.cdb[1:]])
        return await real(nexus, lun, command)

    monkeypatch.setattr(TargetNexus, "execute", execute)


def test_what_is_backed_by_storage_is_told() -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        await engine.write(lun, PAGE, [view(bytes(PAGE))])
        await engine.write(lun, 4 * PAGE, [view(bytes(512))])
        assert await engine.status(lun, 0, 8 * PAGE) == [
            ByteRun(0, PAGE, False),
            ByteRun(PAGE, PAGE, True),
            ByteRun(2 * PAGE, 2 * PAGE, False),
            ByteRun(4 * PAGE, 512, True),
            ByteRun(4 * PAGE + 512, 4 * PAGE - 512, False),
        ]
        assert await engine.status(lun, PAGE + 512, 512) == [ByteRun(PAGE + 512, 512, True)]

    with_lun(scenario)


def test_more_runs_than_one_answer_holds() -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        for block in range(0, 1200, 2):
            unit.device.mapped[block] = 1  # type: ignore[attr-defined]
        runs = await engine.status(lun, 0, 1200 * 512)
        assert [run.mapped for run in runs] == [True, False] * 600
        assert [run.offset for run in runs] == [512 * block for block in range(1200)]

    with_lun(scenario)


def test_a_target_that_can_t_tell_backs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        refuse(monkeypatch, 0x9E)
        assert await engine.status(lun, PAGE, PAGE) == [ByteRun(PAGE, PAGE, True)]

    with_lun(scenario)


class Telling:
    """A target that answers GET LBA STATUS as a test wants."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def execute(self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"") -> memoryview:
        return memoryview(self.answer)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(8), id="no run"),
        pytest.param(bytes(8) + bytes(16), id="a run without blocks"),
        pytest.param(bytes(8) + (9).to_bytes(8) + (8).to_bytes(4) + bytes(4), id="another block's"),
        pytest.param(bytes(8) + (0).to_bytes(8) + (8).to_bytes(4) + bytes(3), id="cut short"),
    ],
)
def test_a_status_that_makes_no_sense_is_an_error(answer: bytes) -> None:
    """S3: and none that goes on for ever."""
    facts = UnitFacts(8192, 512, 4096, 2048, 0, 0, 2048)

    async def scenario() -> None:
        lun = RemoteLun(Telling(answer), 0, facts, "x")  # type: ignore[arg-type]
        with pytest.raises(AluError, match="GET LBA STATUS"):
            await lun.status(PAGE, PAGE)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, AluError), (errno.ENOSPC, AluFull)], ids=["medium error", "no space"]
)
def test_failures_of_the_target_are_named(number: int, kind: type[AluError]) -> None:
    """R1: with the first byte that failed; what came before it was done."""

    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        real = unit.device.submit

        async def submit(request: Request) -> list[Run]:
            if request.op is Op.WRITE and request.lba >= 16:
                raise (NoSpace if number == errno.ENOSPC else WriteFailed)("bad luck", request.lba)
            return await real(request)

        unit.device.immediate = False  # type: ignore[attr-defined]
        unit.device.submit = submit  # type: ignore[method-assign]
        with pytest.raises(kind) as failed:
            await engine.write(lun, 0, [view(noise(4 * PAGE))])
        assert (failed.value.errno, failed.value.offset, failed.value.op) == (number, 2 * PAGE, AluOp.WRITE)
        assert bytes(content(unit)[: 2 * PAGE]) == noise(4 * PAGE)[: 2 * PAGE]

    with_lun(scenario, transfer_blocks=8)


def test_without_a_path_transfers_fail_when_their_time_is_over() -> None:
    async def scenario() -> None:
        async with (
            house({300: make_unit(7)}) as at,
            reached(at, replace(QUICK, deadline_s=0.2)) as target,
            Engine(BackendChoice.THREADS) as engine,
        ):
            lun = await open_remote(target, 300, "a0 by sp2")
            await at.stop(0)
            await at.stop(1)
            for work in (
                engine.read(lun, 0, [view(bytes(PAGE))]),
                engine.write(lun, 0, [view(bytes(PAGE))]),
                engine.flush(lun),
                engine.discard(lun, 0, PAGE),
                engine.status(lun, 0, PAGE),
            ):
                with pytest.raises(AluError, match="a0 by sp2"):
                    await work

    asyncio.run(scenario())


def test_a_cancelled_transfer_ends_when_nobody_uses_its_buffer_any_more() -> None:
    """As with the kernel's: the target may still send what was asked for."""

    async def scenario() -> None:
        async with (
            house({300: make_unit(7)}, portals=1) as at,
            cables(at.endpoints) as ways,
            reached([way.near for way in ways], replace(QUICK, idle_s=30)) as target,
            Engine(BackendChoice.THREADS) as engine,
        ):
            lun = await open_remote(target, 300, "a0 by sp2")
            ways[0].freeze()
            reading = asyncio.create_task(engine.read(lun, 0, [view(bytes(PAGE))]))
            await asyncio.sleep(0.01)
            reading.cancel()
            await asyncio.sleep(0.01)
            assert not reading.done()
            ways[0].thaw()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(scenario())


def test_a_path_may_die_under_an_engine() -> None:
    """R12: verified transfers of all sizes go on when each path is cut in turn."""

    async def scenario() -> None:
        async with (
            house({300: make_unit(7)}) as at,
            cables(at.endpoints) as ways,
            reached([way.near for way in ways]) as target,
            Engine(BackendChoice.THREADS) as engine,
        ):
            lun = await open_remote(target, 300, "a0 by sp2", wwn_of(7))
            for round_ in range(12):
                data = noise(1 << (9 + round_), round_)[: 1 << 20]
                begun = asyncio.create_task(engine.write(lun, 0, [view(data)]))
                await asyncio.sleep(0)
                ways[round_ % 2].cut()
                await begun
                into = view(bytes(len(data)))
                ways[(round_ + 1) % 2].cut()
                await engine.read(lun, 0, [into])
                assert into == data

    asyncio.run(scenario())


def test_a_unit_of_another_name_is_refused() -> None:
    """R12: discovery is by name, and the LUN is only where it was."""

    async def scenario() -> None:
        async with house({300: make_unit(7)}) as at, reached(at) as target:
            with pytest.raises(UsageError, match=f"lun 300 is {wwn_of(7)}, not {wwn_of(8)}"):
                await open_remote(target, 300, "a0 by sp2", wwn_of(8))

    asyncio.run(scenario())


def test_a_unit_smaller_than_a_page_is_refused() -> None:
    async def scenario() -> None:
        async with house({300: make_unit(7, 7)}) as at, reached(at) as target:
            with pytest.raises(UsageError, match="3584 bytes"):
                await open_remote(target, 300, "a0 by sp2")

    asyncio.run(scenario())


def test_a_closed_driver_does_nothing() -> None:
    async def scenario(engine: Engine, lun: RemoteLun, unit: LogicalUnit) -> None:
        await engine.read(lun, 0, [view(bytes(PAGE))])
        await engine.release(lun)
        assert lun.closed
        assert not lun.begin_read(0, view(bytes(PAGE)), lambda code: None)
        assert await lun.readv([view(bytes(PAGE))], 0) == -errno.EBADF
        with pytest.raises(AluError, match="closed"):
            await engine.read(lun, 0, [view(bytes(PAGE))])

    with_lun(scenario)
