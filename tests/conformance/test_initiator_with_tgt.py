"""The initiator with a target that is not ours: tgt, as Debian has it (R1, R12)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backstores.alu.base import ByteRun
from backstores.alu.remote import RemoteLun, open_remote
from backstores.engine.choice import BackendChoice
from backstores.engine.engine import Engine
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity, LoginFailed
from backstores.iscsi.initiator.offers import OfferError
from backstores.iscsi.initiator.target import RemoteTarget
from tests.support.appliance import need
from tests.support.engines import noise, view
from tests.support.remote import QUICK

pytestmark = need("tgtadm")

SIZE = 32 << 20
TARGET = "iqn.2026-11.example.peer:disk"
OURS = Credentials("sp1", b"twelve-letters")
THEIRS = Credentials("peer", b"letters-twelve")
WHO = Identity("iqn.2026-11.example:sp1", TARGET, b"\x80\0\0\0\1\0", OURS, THEIRS)
START_S = 20


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A tgtd with one thin file at LUN 1, which wants CHAP, and proves itself if asked."""
    path = tmp_path_factory.mktemp("tgt") / "disk.img"
    path.touch()
    os.truncate(path, SIZE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = Endpoint(*probe.getsockname())
    control = ["--control-port", str(os.getpid() % 30000 + 1000)]
    tgtd = shutil.which("tgtd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert tgtd is not None
    process = subprocess.Popen([tgtd, "--foreground", *control, "--iscsi", f"portal={found}"])
    try:
        _wait_for(found)
        _configure(control, path)
        yield found
    finally:
        process.kill()  # with a target defined, it does not hear SIGTERM
        process.wait()


def _configure(control: list[str], path: Path) -> None:
    def say(*words: str) -> None:
        subprocess.run(["tgtadm", *control, "--lld", "iscsi", *words], check=True)

    def account(who: Credentials, *words: str) -> None:
        user = ["--mode", "account", "--user", who.user]
        say("--op", "new", *user, "--password", who.secret.decode())
        say("--op", "bind", *user, "--tid", "1", *words)

    say("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET)
    say("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(path), "--bstype", "rdwr")
    say("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "thin_provisioning=1")
    account(OURS)
    account(THEIRS, "--outgoing")
    say("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")


def _wait_for(endpoint: Endpoint) -> None:
    until_s = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection((endpoint.address, endpoint.port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until_s
            time.sleep(0.02)


@asynccontextmanager
async def disk(endpoint: Endpoint, who: Identity = WHO) -> AsyncIterator[tuple[Engine, RemoteLun, RemoteTarget]]:
    """Open the disk by two paths, which lead to the same place."""
    target = RemoteTarget([endpoint, endpoint], who, patience=QUICK)
    await target.open()
    try:
        async with Engine(BackendChoice.THREADS) as engine:
            yield engine, await open_remote(target, 1, "tgt"), target
    finally:
        await target.close()


@pytest.mark.parametrize(
    "who",
    [WHO, replace(WHO, mutual=None)],
    ids=["mutual CHAP", "CHAP"],
)
def test_data_come_back(endpoint: Endpoint, who: Identity) -> None:
    """R12: from a block to what takes several bursts, R2Ts and the like."""

    async def scenario() -> None:
        async with disk(endpoint, who) as (engine, lun, _):
            assert lun.size_bytes == SIZE
            for length in (512, 8192, 100 * 512, 1 << 20, 5 << 20):
                await engine.write(lun, 4096, [view(noise(length))], durable=length == 8192)
                into = view(bytes(length))
                await engine.read(lun, 4096, [into])
                assert into == noise(length)
            await engine.flush(lun)

    asyncio.run(scenario())


def test_space_is_given_back_zeroed_and_told(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with disk(endpoint) as (engine, lun, _):
            await engine.write(lun, 0, [view(b"x" * (1 << 20))])
            await engine.discard(lun, 65536, 65536)
            await engine.zero(lun, 262144, 65536)
            into = view(bytes(1 << 20))
            await engine.read(lun, 0, [into])
            wanted = bytearray(b"x" * (1 << 20))
            wanted[65536:131072] = wanted[262144 : 262144 + 65536] = bytes(65536)
            assert into == wanted
            assert await engine.status(lun, 0, 4096) == [ByteRun(0, 4096, True)]

    asyncio.run(scenario())


def test_many_transfers_at_once(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with disk(endpoint) as (engine, lun, _):
            data = [noise(65536, seed) for seed in range(200)]
            await asyncio.gather(*(engine.write(lun, n * 65536, [view(part)]) for n, part in enumerate(data)))
            into = [view(bytes(65536)) for _ in data]
            await asyncio.gather(*(engine.read(lun, n * 65536, [part]) for n, part in enumerate(into)))
            assert into == data

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "who",
    [replace(WHO, chap=replace(OURS, secret=b"another-secret")), replace(WHO, chap=None, mutual=None)],
    ids=["a wrong secret", "no secret"],
)
def test_a_login_that_fails_says_why(endpoint: Endpoint, who: Identity) -> None:
    async def scenario() -> None:
        with pytest.raises(LoginFailed, match="CHAP name"):
            async with disk(endpoint, who):
                pass

    asyncio.run(scenario())


def test_digests_that_it_does_not_have_are_missed(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        with pytest.raises(OfferError, match="no HeaderDigest=CRC32C"):
            async with disk(endpoint, replace(WHO, header_digest=True)):
                pass

    asyncio.run(scenario())


def test_a_target_that_proves_nothing_is_left(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        with pytest.raises(Exception, match="target's CHAP name or secret is wrong"):
            async with disk(endpoint, replace(WHO, mutual=replace(THEIRS, secret=b"of somebody else"))):
                pass

    asyncio.run(scenario())


def test_the_other_path_takes_over(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        async with disk(endpoint) as (engine, lun, target):
            for round_ in range(4):
                writing = asyncio.create_task(engine.write(lun, 0, [view(noise(1 << 20, round_))]))
                await asyncio.sleep(0)
                carrier = next(path for path in target._paths if path is target._carrier)
                assert carrier.session is not None
                carrier.session.abort("pulled")
                await writing
                into = view(bytes(1 << 20))
                await engine.read(lun, 0, [into])
                assert into == noise(1 << 20, round_)

    asyncio.run(scenario())
