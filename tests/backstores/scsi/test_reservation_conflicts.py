"""Who may do what while a unit is reserved (SPC-4 table 68, SBC-3 table 13)."""

from __future__ import annotations

import itertools

import pytest

from backstores.scsi import cdb as c
from backstores.scsi import transfers as t
from backstores.scsi.model import Status
from backstores.scsi.persistent import Out
from backstores.scsi.reservations import ReservationType as Type
from tests.support.reservations import out, register
from tests.support.scsi import BLOCK, Host, memory_unit

ALWAYS = {
    "inquiry": (c.Inquiry.build(allocation_bytes=96), b""),
    "report luns": (c.ReportLuns.build(allocation_bytes=64), b""),
    "request sense": (c.RequestSense.build(allocation_bytes=18), b""),
    "test unit ready": (bytes(6), b""),
    "read capacity": (c.ReadCapacity10.build(), b""),
    "read keys": (c.PersistentReserveIn.build(allocation_bytes=64), b""),
    "report opcodes": (c.ReportSupportedOpcodes.build(allocation_bytes=64), b""),
    "start": (c.StartStopUnit.build(start=1), b""),
    "allow removal": (c.PreventAllow.build(), b""),
}
READS = {
    "read": (t.Read10.build(lba=0, blocks=1), b""),
    "verify": (t.Verify10.build(lba=0, blocks=1), b""),
    "pre-fetch": (t.Prefetch10.build(lba=0, blocks=1), b""),
    "get lba status": (c.GetLbaStatus.build(allocation_bytes=24), b""),
}
WRITES = {
    "write": (t.Write10.build(lba=0, blocks=1), bytes(BLOCK)),
    "write and verify": (t.WriteVerify10.build(lba=0, blocks=1), bytes(BLOCK)),
    "write same": (t.WriteSame10.build(lba=0, blocks=1), bytes(BLOCK)),
    "compare and write": (t.CompareAndWrite.build(lba=0, blocks=1), bytes(2 * BLOCK)),
    "orwrite": (t.Orwrite.build(lba=0, blocks=1), bytes(BLOCK)),
    "unmap": (c.Unmap.build(), b""),
    "synchronize cache": (t.SynchronizeCache10.build(), b""),
    "mode sense": (c.ModeSense6.build(page=8, allocation_bytes=64), b""),
    "mode select": (c.ModeSelect6.build(page_format=1), b""),
    "stop": (c.StartStopUnit.build(), b""),
    "prevent removal": (c.PreventAllow.build(prevent=1), b""),
}
COMMANDS = {"always": ALWAYS, "read": READS, "write": WRITES}

# What each type leaves to whom: (reads, writes) of a registrant that is no holder, and of others.
ALLOWED = {
    Type.WRITE_EXCLUSIVE: {"registrant": (True, False), "other": (True, False)},
    Type.EXCLUSIVE_ACCESS: {"registrant": (False, False), "other": (False, False)},
    Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY: {"registrant": (True, True), "other": (True, False)},
    Type.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY: {"registrant": (True, True), "other": (False, False)},
    Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS: {"registrant": (True, True), "other": (True, False)},
    Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS: {"registrant": (True, True), "other": (False, False)},
}


def hosts() -> dict[str, Host]:
    """Log three hosts in to one unit; two are registered."""
    unit = memory_unit()
    found = {name: Host.at(unit, name) for name in ("holder", "registrant", "other")}
    register(found["holder"], 1)
    register(found["registrant"], 2)
    return found


@pytest.mark.parametrize("type_", Type, ids=lambda type_: type_.name.lower())
@pytest.mark.parametrize("role", ["holder", "registrant", "other"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_conflicts(type_: Type, role: str, kind: str) -> None:
    """SPC-4 table 68: each command class, from each kind of nexus, under each type."""
    found = hosts()
    assert out(found["holder"], Out.RESERVE, 1, type_=type_) is Status.GOOD
    reads, writes = (True, True) if role == "holder" else ALLOWED[type_][role]
    allowed = {"always": True, "read": reads, "write": writes}[kind]
    wanted = Status.GOOD if allowed else Status.RESERVATION_CONFLICT
    assert {name: found[role].status(*command) for name, command in COMMANDS[kind].items()} == dict.fromkeys(
        COMMANDS[kind], wanted
    )


@pytest.mark.parametrize("type_", Type, ids=lambda type_: type_.name.lower())
def test_the_hot_path_knows_reservations(type_: Type) -> None:
    """The licences say what the commands would."""
    found = hosts()
    out(found["holder"], Out.RESERVE, 1, type_=type_)
    for role, host in found.items():
        reads, writes = (True, True) if role == "holder" else ALLOWED[type_][role]
        assert (bool(host.nexus.fast_read), bool(host.nexus.fast_write)) == (reads, writes), role
    out(found["holder"], Out.RELEASE, 1, type_=type_)
    for host in found.values():
        host.hear()
        assert host.nexus.fast_read
        assert host.nexus.fast_write


class TestReserveAndRelease:
    """RESERVE and RELEASE of SPC-2."""

    @pytest.mark.parametrize(
        ("reserve", "release"),
        list(itertools.product((c.Reserve6, c.Reserve10), (c.Release6, c.Release10))),
        ids=lambda wire: wire.__name__,
    )
    def test_from_one_to_the_other(
        self, reserve: type[c.Reserve6 | c.Reserve10], release: type[c.Release6 | c.Release10]
    ) -> None:
        unit = memory_unit()
        one, other = Host.at(unit, "one"), Host.at(unit, "other")
        one.good(reserve.build())
        one.good(reserve.build())
        assert other.status(reserve.build()) is Status.RESERVATION_CONFLICT
        other.good(release.build())
        assert other.status(bytes(6)) is Status.RESERVATION_CONFLICT
        one.good(release.build())
        other.good(reserve.build())
        assert one.status(bytes(6)) is Status.RESERVATION_CONFLICT

    @pytest.mark.parametrize("kind", COMMANDS)
    def test_conflicts(self, kind: str) -> None:
        """SPC-2 table 10: nearly all that others send."""
        unit = memory_unit()
        one, other = Host.at(unit, "one"), Host.at(unit, "other")
        one.good(c.Reserve6.build())
        free = {"inquiry", "report luns", "request sense", "read capacity", "allow removal"}
        for name, command in COMMANDS[kind].items():
            wanted = Status.GOOD if name in free else Status.RESERVATION_CONFLICT
            assert other.status(*command) is wanted, name
            assert one.status(*command) is Status.GOOD, name
        assert not other.nexus.fast_read
        assert one.nexus.fast_write

    def test_a_lost_nexus_lets_go(self) -> None:
        """SAM-5 clause 6.3.4."""
        unit = memory_unit()
        one, other = Host.at(unit, "one"), Host.at(unit, "other")
        one.good(c.Reserve6.build())
        one.nexus.close()
        assert other.nexus.fast_write
        other.good(c.Reserve6.build())

    def test_nothing_happens_while_others_are_registered(self) -> None:
        """SPC-4 clause 5.12.3: compatible reservation handling (CRH)."""
        found = hosts()
        found["registrant"].good(c.Reserve6.build())
        assert found["other"].status(bytes(6)) is Status.GOOD
        found["registrant"].good(c.Release6.build())
        for cdb in (c.Reserve6.build(), c.Release6.build()):
            assert found["other"].status(cdb) is Status.RESERVATION_CONFLICT

    def test_persistent_reservations_are_in_conflict_with_it(self) -> None:
        unit = memory_unit()
        one, other = Host.at(unit, "one"), Host.at(unit, "other")
        one.good(c.Reserve6.build())
        assert out(other, Out.REGISTER_AND_IGNORE, 0, 1) is Status.RESERVATION_CONFLICT
