"""Sessions: several of one initiator, reinstatement, and their end."""

from __future__ import annotations

import pytest

from backstores.iscsi.access import Account
from backstores.iscsi.limits import SESSIONS_PER_INITIATOR
from backstores.iscsi.session import SessionRegistry
from tests.support.iscsi_client import Client, CoreChannel, LoginFailed
from tests.support.iscsi_twins import INITIATOR, TARGET, MemoryAccess

OTHER = "iqn.2024-01.example:other"


def log_in(access: MemoryAccess, registry: SessionRegistry, name: str = INITIATOR, port: int = 1) -> Client:
    client = Client(CoreChannel(access, registry), name, b"\x80\0\0\0\0" + bytes([port]))
    client.login()
    return client


def closed(client: Client) -> str:
    assert isinstance(client.channel, CoreChannel)
    return client.channel.closed


def test_several_sessions_of_one_initiator() -> None:
    """R33: one for each ISID."""
    access, registry = MemoryAccess(), SessionRegistry()
    clients = [log_in(access, registry, port=port) for port in range(3)]
    assert len({client.tsih for client in clients} - {0}) == 3
    assert all(client.command(bytes(6)).status == 0 for client in clients)


def test_sessions_of_one_initiator_are_capped() -> None:
    """S3: an initiator that goes wrong takes neither all connections nor all memory; its own port's place stays its."""
    access, registry = MemoryAccess(), SessionRegistry()
    access.accounts[OTHER] = Account("host")
    for port in range(SESSIONS_PER_INITIATOR):
        log_in(access, registry, port=port)
    with pytest.raises(LoginFailed, match="0x0302"):
        log_in(access, registry, port=SESSIONS_PER_INITIATOR)
    assert len(access.nexuses) == len(registry) == SESSIONS_PER_INITIATOR
    log_in(access, registry, port=0)  # takes its own place
    log_in(access, registry, OTHER)


def test_a_new_login_of_the_same_port_takes_the_place_of_the_old() -> None:
    """RFC 7143, 6.3.5: the old nexus is closed before the new one opens."""
    order: list[str] = []

    class Watched(MemoryAccess):
        def open_nexus(self, account: Account, initiator: str, isid: bytes, target: str, group_tag: int):  # type: ignore[no-untyped-def]
            order.append(f"open, {sum(nexus.closed for nexus in self.nexuses)} closed")
            return super().open_nexus(account, initiator, isid, target, group_tag)

    access, registry = Watched(), SessionRegistry()
    old = log_in(access, registry)
    new = log_in(access, registry)
    assert order == ["open, 0 closed", "open, 1 closed"]
    assert closed(old) == "reinstated by a new login"
    assert not closed(new)
    assert [session.tsih for session in registry] == [new.tsih]
    assert new.command(bytes(6)).status == 0


def test_a_login_with_the_tsih_reinstates_the_connection() -> None:
    """RFC 7143, 6.3.4: the session keeps its TSIH."""
    access, registry = MemoryAccess(), SessionRegistry()
    old = log_in(access, registry)
    new = Client(CoreChannel(access, registry), isid=old.isid)
    new.tsih = old.tsih
    new.login()
    assert new.tsih == old.tsih
    assert closed(old)
    assert new.command(bytes(6)).status == 0


def test_another_initiator_takes_nobodys_place() -> None:
    """S2."""
    access = MemoryAccess(accounts={INITIATOR: Account("host"), OTHER: Account("other")})
    access.targets_of["other"] = (TARGET,)
    registry = SessionRegistry()
    first, second = log_in(access, registry), log_in(access, registry, OTHER)
    assert not closed(first)
    assert not closed(second)
    assert len(registry) == 2


def test_a_failed_login_takes_nobodys_place() -> None:
    access, registry = MemoryAccess(), SessionRegistry()
    first = log_in(access, registry)
    refused = Client(CoreChannel(access, registry))
    refused.login_request({"InitiatorName": INITIATOR, "TargetName": "iqn.x:y"}, 1, 3)
    assert not closed(first)
    assert len(registry) == 1


def test_a_lost_connection_closes_the_nexus_once() -> None:
    access, registry = MemoryAccess(), SessionRegistry()
    client = log_in(access, registry)
    client.channel.close()
    client.channel.close()
    assert access.nexuses[0].closed == 1
    assert len(registry) == 0


def test_a_removed_host_loses_its_sessions_and_no_other_does() -> None:
    access = MemoryAccess(accounts={INITIATOR: Account("host"), OTHER: Account("other")})
    access.targets_of["other"] = (TARGET,)
    registry = SessionRegistry()
    mine = [log_in(access, registry, port=port) for port in range(2)]
    other = log_in(access, registry, OTHER)
    assert registry.drop_host("host", "the host was removed") == 2
    assert [closed(client) for client in mine] == ["the host was removed"] * 2
    assert not closed(other)
    assert registry.drop_host("host", "again") == 0
