"""A session on real sockets: commands, large transfers, and its end (R12)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator import transport
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import LoginFailed
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.session import Session, connect
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.transport import ReceiveBuffer
from backstores.scsi import cdb as formats
from tests.support.engines import noise
from tests.support.remote import QUICK, House, house, identity, make_unit

T = TypeVar("T")
MIB = 1 << 20


def with_house(scenario: Callable[[House], Awaitable[T]]) -> T:
    """Run a scenario with a target of one portal and one unit of 4 MiB."""

    async def run() -> T:
        async with house({0: make_unit(1)}, portals=1) as at:
            return await scenario(at)

    return asyncio.run(run())


async def moved(session: Session, begin: Callable[[Callable[[Task], None]], None]) -> Task:
    """Wait for the end of what ``begin`` submits."""
    ended: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
    begin(ended.set_result)
    return await ended


@pytest.mark.parametrize("header_digest", [False, True], ids=["plain", "header digest"])
@pytest.mark.parametrize("length", [512, 65536, 4 * MIB])
def test_data_come_back(header_digest: bool, length: int) -> None:
    """R12: one command each way; what is larger than the socket's buffers waits for them."""

    async def scenario(at: House) -> None:
        session = await connect(at.endpoints[0], identity(header_digest=header_digest), patience=QUICK)
        data = memoryview(noise(length))
        written = await moved(session, lambda done: session.write(0, 0, length // 512, data, done))
        assert (written.status, written.sense[2:3]) in ((0, b""), (2, b"\x06"))  # its first command hears of a power on
        written = await moved(session, lambda done: session.write(0, 0, length // 512, data, done, fua=True))
        assert written.status == 0
        into = memoryview(bytearray(length))
        read = await moved(session, lambda done: session.read(0, 0, length // 512, into, done))
        assert (read.status, read.moved_bytes) == (0, length)
        assert into == data
        await session.close()
        assert session.reason == "logged out"

    with_house(scenario)


def test_neither_side_waits_for_the_other_when_both_have_much_to_say() -> None:
    """64 MiB each way at once: who stopped reading while it can't send would wait for ever."""

    async def scenario(at: House) -> None:
        session = await connect(at.endpoints[0], identity(), patience=QUICK)
        await settled(session)
        data = memoryview(noise(MIB))
        into = [memoryview(bytearray(MIB)) for _ in range(64)]
        ended: list[Task] = []
        over = asyncio.Event()

        def done(task: Task) -> None:
            ended.append(task)
            if len(ended) == 128:
                over.set()

        for view in into:
            session.read(0, 0, MIB // 512, view, done)
            session.write(0, MIB // 512, MIB // 512, data, done)
        await over.wait()
        assert [task.status for task in ended] == [0] * 128
        await session.close()

    with_house(scenario)


async def settled(session: Session) -> None:
    """Hear the unit attention of a new session."""
    with pytest.raises(CommandFailed):
        await session.execute(0, formats.TestUnitReady.build())


def test_sessions_share_a_receive_buffer() -> None:
    """Each keeps the beginning of what has not come whole while another receives."""

    async def scenario(at: House) -> None:
        buffer = ReceiveBuffer()
        sessions = [
            await connect(at.endpoints[0], replace(identity(), isid=bytes([128, 0, 0, 0, 0, n])), buffer=buffer)
            for n in range(4)
        ]
        for session in sessions:
            await settled(session)
        data = memoryview(noise(MIB))
        assert (await moved(sessions[0], lambda done: sessions[0].write(0, 0, 2048, data, done))).status == 0
        reads = []
        for session in sessions:
            for lba in range(0, 2000, 100):
                into = memoryview(bytearray(48 * 512))
                reads.append(
                    (lba, into, moved(session, lambda done, s=session, a=lba, i=into: s.read(0, a, 48, i, done)))
                )
        for lba, into, read in reads:
            assert (await read).status == 0
            assert into == data[lba * 512 : (lba + 48) * 512]
        for session in sessions:
            await session.close()

    with_house(scenario)


def test_what_goes_wrong_at_the_target_is_an_error_with_a_number() -> None:
    async def scenario(at: House) -> None:
        session = await connect(at.endpoints[0], identity(), patience=QUICK)
        await settled(session)
        with pytest.raises(CommandFailed, match="to lun 0: Operation not supported") as failed:
            await session.execute(0, b"\xee" + bytes(5))
        assert not isinstance(failed.value, ConnectionLost)
        with pytest.raises(CommandFailed, match="to lun 7: No such device"):
            await session.execute(7, formats.TestUnitReady.build())
        await session.close()

    with_house(scenario)


def test_a_wrong_secret_is_told_as_such() -> None:
    """S2: the error says what to look at, and holds no secret."""

    async def scenario(at: House) -> None:
        wrong = replace(identity(), chap=Credentials("sp3", b"not what it is"))
        with pytest.raises(LoginFailed, match="CHAP name or secret") as failed:
            await connect(at.endpoints[0], wrong, patience=QUICK)
        assert "not what it is" not in str(failed.value)

    with_house(scenario)


def test_a_target_that_is_not_there_is_an_error() -> None:
    async def scenario(at: House) -> None:
        endpoint = at.endpoints[0]
        await at.stop(0)
        with pytest.raises(ConnectionLost, match=f"127.0.0.1:{endpoint.port}"):
            await connect(endpoint, identity(), patience=QUICK)

    with_house(scenario)


def test_a_path_may_begin_at_an_address_of_ours() -> None:
    """R10: by its source a portal tells over which fabric somebody comes."""

    async def scenario(at: House) -> None:
        endpoint = replace(at.endpoints[0], source="127.0.0.77")
        session = await connect(endpoint, identity(), patience=QUICK)
        assert [known.address for known in at.registry] == ["127.0.0.77"]
        await session.close()
        with pytest.raises(ConnectionLost):
            await connect(replace(endpoint, source="192.0.2.1"), identity(), patience=QUICK)

    with_house(scenario)


def test_a_target_that_says_nothing_is_left() -> None:
    """S1: a port that takes connections and never answers a login."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            patience = Patience(login_s=0.05, tick_s=0.01)
            with pytest.raises(Exception, match="no login within"):
                await connect(Endpoint(*server.getsockname()), identity(), patience=patience)

    asyncio.run(scenario())


def test_a_session_that_is_cut_off_ends_its_commands_after_itself() -> None:
    """Who sends a command again by another path must know by then that this one is dead, and its socket closed."""

    async def scenario(at: House) -> None:
        heard: list[str] = []
        over = asyncio.Event()

        def done(task: Task) -> None:
            heard.append("lost" if task.lost else "answered")
            over.set()

        session = await connect(at.endpoints[0], identity(), ended=lambda ended: heard.append(ended.reason))
        await settled(session)
        session.read(0, 0, 8, memoryview(bytearray(4096)), done)
        session.abort("cut off")
        await over.wait()
        assert heard == ["cut off", "lost"]
        assert not session.ready

    with_house(scenario)


def test_a_session_that_is_given_up_is_reset() -> None:
    """What the kernel still has to deliver would else arrive after what was sent again by another path."""

    async def scenario() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        connecting = asyncio.ensure_future(connect(Endpoint(*server.getsockname()), identity(), patience=QUICK))
        peer, _ = await loop.sock_accept(server)
        await loop.sock_recv(peer, 4096)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(peer, 4096)  # what came before the reset is gone with it
        peer.close()
        server.close()

    asyncio.run(scenario())


def test_a_batch_leaves_with_one_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are submitted in one turn of the loop, small data of writes included."""
    calls: list[int] = []
    real = transport.os.writev

    def writev(fd: int, parts: list[memoryview]) -> int:
        calls.append(len(parts))
        return real(fd, parts)

    async def scenario(at: House) -> None:
        session = await connect(at.endpoints[0], identity(), patience=QUICK)
        await settled(session)
        monkeypatch.setattr(transport.os, "writev", writev)
        over = asyncio.Event()
        left = [32]

        def done(task: Task) -> None:
            left[0] -= 1
            if not left[0]:
                over.set()

        for number in range(16):
            session.read(0, number, 1, memoryview(bytearray(512)), done)
            session.write(0, number, 1, memoryview(bytes(512)), done)
        assert calls == []
        await over.wait()
        assert calls == [1]
        await session.close()

    with_house(scenario)
