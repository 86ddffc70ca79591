"""What ends by time: late logins, silent initiators, stalled data (S1, S3). The time is an argument."""

from __future__ import annotations

import pytest

from backstores.iscsi.limits import Limits
from backstores.iscsi.pdu import NO_TAG, DataOut, NopIn, NopOut, R2t, ScsiCommand
from tests.support.iscsi_client import Client, CoreChannel, connect, write10
from tests.support.iscsi_twins import MemoryAccess

LIMITS = Limits(login_s=15, idle_s=30, answer_s=15, data_out_s=30)


def logged_in(limits: Limits = LIMITS) -> tuple[Client, CoreChannel]:
    client, channel = connect(MemoryAccess(), limits=limits)
    client.login()
    return client, channel


@pytest.mark.parametrize("begun", [False, True], ids=["nothing said", "half a login"])
def test_a_login_has_fifteen_seconds(begun: bool) -> None:
    """S1: whatever trickles in meanwhile."""
    client, channel = connect(MemoryAccess(), limits=LIMITS)
    if begun:
        client.login_request(client.names(), 0, None)
    for now in range(15):
        channel.send(b"")
        channel.tick(now)
        assert not channel.closed
    channel.tick(15)
    assert channel.closed == "no login within 15 s"


def test_an_idle_session_is_asked_once_and_stays_if_it_answers() -> None:
    client, channel = logged_in()
    channel.tick(100)
    for now in range(101, 130):
        channel.tick(now)
    assert client.silent()
    channel.tick(130)
    ping = client.expect(NopIn)
    assert (ping.itt, ping.ttt) == (NO_TAG, 1)
    channel.tick(140)
    assert client.silent()
    client.send(NopOut, immediate=1, itt=NO_TAG, ttt=ping.ttt)
    assert client.silent()
    for now in range(145, 175):
        channel.tick(now)
    assert client.silent()
    assert not channel.closed


def test_who_has_slept_gives_an_initiator_its_time_all_the_same() -> None:
    """A process that was stopped finds that nobody has spoken: it asks, and waits for the answer as always."""
    client, channel = logged_in()
    channel.tick(100)
    channel.tick(1000)
    client.expect(NopIn)
    channel.tick(1014)
    assert not channel.closed
    channel.tick(1015)
    assert channel.closed


def test_a_session_that_does_not_answer_is_dropped() -> None:
    client, channel = logged_in()
    channel.tick(100)
    channel.tick(130)
    client.expect(NopIn)
    channel.tick(144)
    assert not channel.closed
    channel.tick(145)
    assert channel.closed == "no answer to a NOP-In within 15 s"


def test_data_that_stalls_ends_its_command() -> None:
    """S3: a stalled R2T expires; data that moves on does not."""
    client, channel = logged_in(Limits(idle_s=1e9, data_out_s=30))
    itt = client.send(ScsiCommand, write=1, expected_bytes=1536, cdb=write10(0, 3))
    r2t = client.expect(R2t)
    channel.tick(0)
    channel.tick(29)
    client.send(DataOut, bytes(512), itt=itt, ttt=r2t.ttt, final=0)
    channel.tick(31)
    channel.tick(60)
    assert client.silent()
    channel.tick(61)
    assert client.finish(itt).asc == (0x0B, 0x4B, 0x06)
    client.send(DataOut, bytes(512), itt=itt, ttt=r2t.ttt, data_sn=1, offset_bytes=512)
    assert client.silent()
    assert not channel.closed
