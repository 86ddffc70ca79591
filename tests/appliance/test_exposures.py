"""Who may log in and sees what, and that changes reach sessions that run (R14, R15)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.exposures import Exposures
from appliance.messages import Exposure, HostDefinition
from backstores.errors import UsageError
from backstores.iscsi.access import Account, Portal
from backstores.scsi.unit import LogicalUnit
from backstores.wwn import Wwn
from tests.support.iscsi_client import Client, Closed, LoginFailed, Served, SocketChannel, serving
from tests.support.scsi import memory_unit

TARGET = "iqn.2026-11.example.tiergate:exposures"
WEB, MAIL, STRANGER = (f"iqn.2026-11.example.host:{name}" for name in ("web", "mail", "stranger"))
TEST_UNIT_READY = bytes(16)
REPORT_LUNS = bytes([0xA0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0])
LUNS_CHANGED = (0x6, 0x3F, 0x0E)
POWER_ON = (0x6, 0x29, 0x00)
NO_UNIT = (0x5, 0x25, 0x00)
GOOD, CHECK_CONDITION = 0, 2


def volume(number: int) -> Wwn:
    return Wwn(f"{0x6 << 124 | number:032x}")


def host(name: str, iqn: str, **chap: str) -> HostDefinition:
    return HostDefinition(name=name, iqn=iqn, **chap)


def shown(host: str, number: int, lun: int) -> Exposure:
    return Exposure(host=host, volume=volume(number), lun=lun)


class Volumes:
    """Units by volume, as a storage processor has them; those that are off line are not there."""

    def __init__(self, *numbers: int) -> None:
        self.units: dict[Wwn, LogicalUnit] = {volume(number): memory_unit(64) for number in numbers}

    def find(self, wwn: Wwn) -> LogicalUnit | None:
        return self.units.get(wwn)


def exposures(volumes: Volumes | None = None) -> Exposures:
    return Exposures(TARGET, (Portal("127.0.0.1", 3260, 1),), (volumes or Volumes()).find)


PATTERNS = [
    host("exact", WEB),
    host("short", "iqn.2026-11.*"),
    host("long", "iqn.2026-11.example.host:*"),
    host("any", "*"),
    host("one-character", "iqn.2026-11.example.host:we?"),
]


@pytest.mark.parametrize(
    ("without", "found"),
    [
        ((), "exact"),
        (("exact",), "one-character"),
        (("exact", "one-character"), "long"),
        (("exact", "one-character", "long"), "short"),
        (("exact", "one-character", "long", "short"), "any"),
        (("exact", "one-character", "long", "short", "any"), None),
    ],
    ids=["exact", "question-mark", "long-pattern", "short-pattern", "anybody", "nobody"],
)
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_an_exact_name_goes_before_the_longest_pattern(without: tuple[str, ...], found: str | None, order: int) -> None:
    """R15: in whatever order the hosts are listed."""
    access = exposures()
    access.set([one for one in PATTERNS[::order] if one.name not in without], [])
    account = access.account(WEB.upper())
    assert (account and account.host) == found


def test_an_account_carries_its_secrets_and_shows_none() -> None:
    """S2, R33."""
    access = exposures()
    secrets = {"chap_user": "u", "chap_secret": "first secret", "mutual_user": "m", "mutual_secret": "second secret"}
    access.set([host("web", WEB, **secrets)], [])
    account = access.account(WEB)
    assert isinstance(account, Account)
    assert account.chap is not None
    assert account.mutual is not None
    assert (account.chap.user, account.chap.secret) == ("u", b"first secret")
    assert (account.mutual.user, account.mutual.secret) == ("m", b"second secret")
    assert "secret'" not in repr(account)


def test_another_target_is_refused() -> None:
    access = exposures()
    with pytest.raises(UsageError, match="there is no target"):
        access.open_nexus(Account("web"), WEB, bytes(6), "iqn.2026-11.example.other:1", 1)


# Sessions that run


@contextmanager
def portal(volumes: Volumes, *hosts: HostDefinition, luns: tuple[Exposure, ...] = ()) -> Iterator[Sessions]:
    """Serve, with sessions that are dropped as in the appliance."""
    access = exposures(volumes)
    access.set(hosts, luns)
    with serving(access) as served:
        access.drop_host = served.portal.drop_host
        yield Sessions(access, served)


class Sessions:
    """A portal, and clients of it."""

    def __init__(self, access: Exposures, served: Served) -> None:
        self.access = access
        self.served = served

    def login(self, name: str) -> Client:
        """Log in, and take the unit attention that each unit begins with."""
        client = Client(SocketChannel(self.served.address), name)
        client.login(target=TARGET)
        return client

    def set(self, hosts: list[HostDefinition], luns: list[Exposure]) -> None:
        self.served.call(lambda: self.access.set(hosts, luns))

    def refresh(self) -> None:
        self.served.call(self.access.refresh)


def ready(client: Client, lun: int) -> tuple[int, int, int] | int:
    """Send TEST UNIT READY: give the sense, or GOOD."""
    result = client.command(TEST_UNIT_READY, lun=lun << 48)
    return result.asc if result.status == CHECK_CONDITION else result.status


def settled(client: Client, lun: int) -> None:
    """Take all unit attentions of a LUN."""
    while ready(client, lun) != GOOD:
        pass


def ended(client: Client) -> bool:
    """Say whether the target ends the session."""
    try:
        while True:
            client.receive()  # an Asynchronous Message may come first
    except Closed:
        return True


def luns(client: Client) -> list[int]:
    data = client.command(REPORT_LUNS, read=4096).data
    return [int.from_bytes(data[at : at + 2], "big") for at in range(8, len(data), 8)]


def test_a_volume_that_is_exposed_later_is_seen_by_the_session_that_runs() -> None:
    """R14, R16: and the host is told that there is something new (SPC-4, REPORTED LUNS DATA HAS CHANGED)."""
    web = host("web", WEB)
    with portal(Volumes(1, 2), web, luns=(shown("web", 1, 0),)) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        assert luns(client) == [0]
        sessions.set([web], [shown("web", 1, 0), shown("web", 2, 7)])
        assert ready(client, 0) == LUNS_CHANGED
        assert ready(client, 0) == GOOD
        assert ready(client, 7) == POWER_ON
        assert luns(client) == [0, 7]


def test_a_volume_that_is_taken_away_is_gone_at_once_and_the_rest_goes_on() -> None:
    """R15."""
    web = host("web", WEB)
    with portal(Volumes(1, 2), web, luns=(shown("web", 1, 0), shown("web", 2, 7))) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        settled(client, 7)
        sessions.set([web], [shown("web", 1, 0)])
        assert ready(client, 7) == NO_UNIT
        assert ready(client, 0) == LUNS_CHANGED
        assert ready(client, 0) == GOOD


def test_volumes_that_go_off_line_and_come_back_change_the_lun_map() -> None:
    """R30: an exposure outlives the volume's absence."""
    web, volumes = host("web", WEB), Volumes(1, 2)
    with portal(volumes, web, luns=(shown("web", 1, 0), shown("web", 2, 7))) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        unit = volumes.units.pop(volume(2))
        sessions.refresh()
        assert ready(client, 7) == NO_UNIT
        settled(client, 0)
        volumes.units[volume(2)] = unit
        sessions.refresh()
        assert ready(client, 0) == LUNS_CHANGED
        assert ready(client, 7) == POWER_ON
        assert sessions.access.luns_of("web") == (0, 7)


def test_what_changes_for_one_host_leaves_another_alone() -> None:
    """R15: no session of another host ends, nor does it hear of anything."""
    web, mail = host("web", WEB), host("mail", MAIL)
    with portal(Volumes(1, 2), web, mail, luns=(shown("web", 1, 0), shown("mail", 2, 0))) as sessions:
        one, other = sessions.login(WEB), sessions.login(MAIL)
        settled(one, 0)
        settled(other, 0)
        sessions.set([mail], [shown("mail", 2, 0)])
        assert ended(one)
        assert ready(other, 0) == GOOD


CHANGES = {
    "removed": [],
    "another-name": [host("web", MAIL)],
    "chap-is-asked-for": [host("web", WEB, chap_user="u", chap_secret="a secret of the host")],
}


@pytest.mark.parametrize("hosts", CHANGES.values(), ids=CHANGES)
def test_a_host_that_was_changed_has_to_log_in_again(hosts: list[HostDefinition]) -> None:
    """S2: whoever got in by the old definition is put out, and does not get in again."""
    with portal(Volumes(1), host("web", WEB), luns=(shown("web", 1, 0),)) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        sessions.set(hosts, [])
        assert ended(client)
        with pytest.raises(LoginFailed):
            sessions.login(WEB)


def test_an_initiator_that_becomes_another_hosts_loses_what_it_saw() -> None:
    """R15: by a pattern it was let in; now a host of its own name says what it sees."""
    anybody, web = host("any", "*"), host("web", WEB)
    with portal(Volumes(1), anybody, luns=(shown("any", 1, 0),)) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        sessions.set([anybody, web], [shown("any", 1, 0)])
        assert ended(client)
        assert ready(sessions.login(WEB), 0) == NO_UNIT
        assert ready(sessions.login(STRANGER), 0) == POWER_ON


def test_settings_that_did_not_change_disturb_nobody() -> None:
    web = host("web", WEB)
    with portal(Volumes(1), web, luns=(shown("web", 1, 0),)) as sessions:
        client = sessions.login(WEB)
        settled(client, 0)
        sessions.set([web], [shown("web", 1, 0)])
        assert ready(client, 0) == GOOD
