"""What a device, or the kernel instead of it, says of a CDB, as the host hears it (R5)."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from backstores.alu import sg
from backstores.alu.base import AluError
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.memory import MemoryDriver
from backstores.alu.opening import open_alu
from backstores.alu.sg import Answer
from backstores.engine.engine import Engine
from backstores.scsi.model import Response, Status
from backstores.scsi.sense import Condition, codes_of
from backstores.scsi.steps import PassThrough
from backstores.volume.passing import SgPasser, passer_of
from tests.support.engines import loop_device

READ = bytes.fromhex("28000000000000000100")
SENSE = bytes.fromhex("70000300000000")


def sent(monkeypatch: pytest.MonkeyPatch, folder: Path, outcome: Answer | Exception, closed: bool = False) -> Response:
    """Send a READ to a device that answers so."""

    def send(fd: int, cdb: bytes, data_out: memoryview, data_in_bytes: int) -> Answer:
        assert (fd, cdb, data_in_bytes) == (driver.fd, READ, 512)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def scenario() -> Response:
        async with Engine() as engine:
            passer = SgPasser(engine, driver, 4096)
            if closed:
                await engine.release(driver)
            return await passer.send(PassThrough(READ, memoryview(b""), 512))

    monkeypatch.setattr(sg, "send", send)
    driver: DescriptorDriver = open_alu(str(folder / "disk"), size_bytes=4096)
    return asyncio.run(scenario())


def test_what_the_device_says_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R5: status, sense data and data."""
    assert sent(monkeypatch, tmp_path, Answer(0, b"", b"x" * 512, 0)) == Response(data_in=b"x" * 512)
    (tmp_path / "disk").unlink()
    expected = Response(Status.CHECK_CONDITION, SENSE, b"x" * 100)
    assert sent(monkeypatch, tmp_path, Answer(2, SENSE, b"x" * 100, 0)) == expected


FAILURES: dict[str, tuple[Answer | Exception, Condition]] = {
    "no-connection": (Answer(0, b"", b"", 0x01), Condition.CAUSE_NOT_REPORTABLE),
    "timed-out": (Answer(0, b"", b"", 0x03), Condition.INTERNAL_TARGET_FAILURE),
    "status-unknown": (Answer(0x22, b"", b"", 0), Condition.INTERNAL_TARGET_FAILURE),
    "no-sense-data": (Answer(2, b"", b"", 0), Condition.INTERNAL_TARGET_FAILURE),
    "the-kernel-refuses": (PermissionError(errno.EPERM, "no"), Condition.INTERNAL_TARGET_FAILURE),
    "the-device-is-gone": (OSError(errno.ENODEV, "gone"), Condition.INTERNAL_TARGET_FAILURE),
}


@pytest.mark.parametrize(("outcome", "condition"), FAILURES.values(), ids=FAILURES)
def test_that_there_is_no_answer_is_told_as_sense_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: Answer | Exception, condition: Condition
) -> None:
    """C3: a host hears an error, and the appliance goes on."""
    response = sent(monkeypatch, tmp_path, outcome)
    assert (response.status, codes_of(response.sense)) == (Status.CHECK_CONDITION, condition.value)


def test_an_alu_that_is_closed_gets_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its descriptor may be another file's by then."""
    response = sent(monkeypatch, tmp_path, AssertionError("sent"), closed=True)
    assert codes_of(response.sense) == Condition.INTERNAL_TARGET_FAILURE.value


def test_a_file_is_passed_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine() as engine:
            for driver in (open_alu(str(tmp_path / "disk"), size_bytes=4096), MemoryDriver(4096)):
                assert await passer_of(engine, driver) is None

    asyncio.run(scenario())


@pytest.mark.root
@pytest.mark.parametrize("outcome", [None, 65536, OSError(errno.ENXIO, "gone")], ids=str)
def test_a_disk_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: int | OSError | None) -> None:
    def most_bytes(fd: int) -> int | None:
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async def scenario(path: str) -> None:
        async with Engine() as engine:
            driver = open_alu(path)
            if isinstance(outcome, OSError):
                with pytest.raises(AluError, match="No such device or address"):
                    await passer_of(engine, driver)
                return
            passer = await passer_of(engine, driver)
            assert (passer and passer.most_bytes) == outcome

    monkeypatch.setattr(sg, "most_bytes", most_bytes)
    with loop_device(tmp_path / "backing", 1 << 20) as path:
        asyncio.run(scenario(path))
