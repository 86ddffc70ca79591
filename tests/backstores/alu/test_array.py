"""Units of targets as ALUs by URL: opened by the engine like files (R1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backstores.alu.array import IQN_PREFIX
from backstores.alu.base import Kind
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.iscsi.access import Account
from tests.support.engines import noise, view
from tests.support.remote import INITIATOR, OURS, TARGET, THEIRS, House, house, make_unit

PAGE = 4096


@pytest.fixture
def secrets(tmp_path: Path) -> tuple[Path, Path]:
    """Write the secrets of both sides into files."""
    files = tmp_path / "ours", tmp_path / "theirs"
    for file, credentials in zip(files, (OURS, THEIRS), strict=True):
        file.touch(0o600)
        file.write_bytes(credentials.secret)
    return files


def url(at: House, options: str, user: str = "sp3@", lun: int = 300) -> str:
    hosts = ",".join(map(str, at.endpoints))
    return f"iscsi://{user}{hosts}/{TARGET}/{lun}?initiator={INITIATOR}{options}"


def with_house(scenario: Callable[[House, Engine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with house({300: make_unit(7)}) as at, Engine(BackendChoice.THREADS) as engine:
            await scenario(at, engine)

    asyncio.run(run())


@pytest.mark.parametrize("mutual", [False, True], ids=["CHAP", "mutual CHAP"])
def test_the_engine_opens_a_url(secrets: tuple[Path, Path], mutual: bool) -> None:
    """R1: by the path that it was given, which is how it is listed; released, its sessions end."""

    async def scenario(at: House, engine: Engine) -> None:
        target = f"&target-user=sp2&target-secret-file={secrets[1]}" if mutual else ""
        path = url(at, f"&secret-file={secrets[0]}&header-digest=yes{target}")
        driver = await engine.open(path)
        assert (driver.path, driver.kind, driver.size_bytes) == (path, Kind.REMOTE, 4 << 20)
        await engine.write(driver, PAGE, [view(noise(PAGE))], durable=True)
        into = view(bytes(PAGE))
        await engine.read(driver, PAGE, [into])
        assert into == noise(PAGE)
        assert len(at.registry) > 0
        await engine.release(driver)
        assert driver.closed
        assert len(at.registry) == 0

    with_house(scenario)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"lun": 5}, "to lun 5: No such device", id="no such unit"),
        pytest.param({"user": "sp4@"}, "CHAP name or secret", id="another user"),
        pytest.param({"user": "sp3@nobody:1,"}, "", id="one host of several that is not there"),
    ],
)
def test_what_can_t_be_opened_says_why(secrets: tuple[Path, Path], change: dict[str, object], words: str) -> None:
    async def scenario(at: House, engine: Engine) -> None:
        path = url(at, f"&secret-file={secrets[0]}", **change)  # type: ignore[arg-type]
        if words:
            with pytest.raises(UsageError, match=words):
                await engine.open(path)
        else:
            await engine.open(path)

    with_house(scenario)


def test_a_secret_that_others_can_read_is_refused(secrets: tuple[Path, Path]) -> None:
    """S2: as everywhere; nothing is sent."""
    secrets[0].chmod(0o644)

    async def scenario(at: House, engine: Engine) -> None:
        with pytest.raises(UsageError, match="chmod 600"):
            await engine.open(url(at, f"&secret-file={secrets[0]}"))

    with_house(scenario)


def test_a_unit_has_the_size_it_has(secrets: tuple[Path, Path]) -> None:
    async def scenario(at: House, engine: Engine) -> None:
        with pytest.raises(UsageError, match="leave these out"):
            await engine.open(url(at, f"&secret-file={secrets[0]}"), size_bytes=1 << 20)

    with_house(scenario)


def test_without_a_name_the_machine_gives_its_own() -> None:
    """An initiator name that an array's people can let in without asking which it is."""
    names: list[str] = []

    async def scenario(at: House, engine: Engine) -> None:
        at.account_of = Account("sp3")
        at.account = lambda initiator: names.append(initiator)  # type: ignore[method-assign, func-returns-value]
        with pytest.raises(UsageError, match="does not let"):
            await engine.open(f"iscsi://{at.endpoints[0]}/{TARGET}/300")

    with_house(scenario)
    assert names[0].startswith(f"{IQN_PREFIX}:")
