"""``fast_read`` and ``fast_write`` allow just what ``execute`` would let pass, after any change of state."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.scsi import cdb as c
from backstores.scsi import lun
from backstores.scsi import transfers as t
from backstores.scsi.mode_commands import Header6
from backstores.scsi.model import Function, Status
from backstores.scsi.modes import CachingPage, ControlPage
from backstores.scsi.persistent import Out
from backstores.scsi.reservations import ReservationType
from backstores.scsi.target import Exposed
from backstores.scsi.unit import LogicalUnit
from tests.support.reservations import out_command
from tests.support.scsi import BLOCK, Host, condition, memory_unit

NAMES = "abc"
KEYS = {name: number for number, name in enumerate(NAMES, 1)}


def mode_select(page: bytes) -> tuple[bytes, bytes]:
    """Make MODE SELECT of one page."""
    data = Header6.build() + page
    return c.ModeSelect6.build(page_format=1, parameter_bytes=len(data)), data


def reservation_command(action: Out, name: str, other: str, type_: ReservationType) -> tuple[bytes, bytes]:
    """Make PERSISTENT RESERVE OUT with keys that make sense for a host."""
    action_key = {Out.REGISTER_AND_IGNORE: KEYS[name], Out.PREEMPT: KEYS[other]}.get(action, 0)
    return out_command(action, KEYS[name], action_key, type_)


commands = st.one_of(
    st.sampled_from(
        [
            (bytes(6), b""),
            (c.Reserve6.build(), b""),
            (c.Release6.build(), b""),
            (c.StartStopUnit.build(load_eject=1), b""),
            (c.StartStopUnit.build(load_eject=1, start=1), b""),
            (c.RequestSense.build(allocation_bytes=18), b""),
            mode_select(CachingPage.build(write_cache=1)),
            mode_select(CachingPage.build(write_cache=0)),
            mode_select(ControlPage.build(write_protect=1)),
            mode_select(ControlPage.build(write_protect=0)),
        ]
    ),
)
reservations = st.tuples(
    st.sampled_from([Out.REGISTER_AND_IGNORE, Out.RESERVE, Out.RELEASE, Out.CLEAR, Out.PREEMPT, Out.REGISTER]),
    st.sampled_from(NAMES),
    st.sampled_from(list(ReservationType)),
)
Event = tuple[str, Callable[[dict[str, Host], str, LogicalUnit], object]]


def _resize(hosts: dict[str, Host], name: str, unit: LogicalUnit) -> None:
    unit.resized()


def _reset(hosts: dict[str, Host], name: str, unit: LogicalUnit) -> None:
    hosts[name].manage(Function.LOGICAL_UNIT_RESET)


def _log_in_again(hosts: dict[str, Host], name: str, unit: LogicalUnit) -> None:
    hosts[name].nexus.close()
    hosts[name] = Host.at(unit, name, read_only=name == "c", greet=False)


def _add_lun(hosts: dict[str, Host], name: str, unit: LogicalUnit) -> None:
    hosts[name].nexus.set_luns({0: Exposed(unit, name == "c"), 1: Exposed(memory_unit())})


def _swap_protection(hosts: dict[str, Host], name: str, unit: LogicalUnit) -> None:
    hosts[name].nexus.set_luns({0: Exposed(unit, read_only=True)})


others = st.sampled_from([_resize, _reset, _log_in_again, _add_lun, _swap_protection])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(commands, reservations, others)), max_size=12))
def test_the_licence_says_what_would_happen(script: list[tuple[str, object]]) -> None:
    unit = memory_unit(8, removable=True)
    hosts = {name: Host.at(unit, name, read_only=name == "c") for name in NAMES}
    for name, event in script:
        match event:
            case (bytes() as cdb, bytes() as data):
                hosts[name].send(cdb, data)
            case (Out() as action, str() as other, ReservationType() as type_):
                hosts[name].send(*reservation_command(action, name, other, type_))
            case _ if callable(event):
                event(hosts, name, unit)
    write_cache = unit.modes.write_cache
    for name, host in hosts.items():
        field = lun.encode(0)
        licences = (field in host.nexus.fast_read, field in host.nexus.fast_write)
        # The write goes first: were a unit attention waiting, the first command would clear it.
        write = host.send(t.Write10.build(lba=0, blocks=1), bytes(BLOCK))
        attention = condition(write) is not None and condition(write).key == 6  # type: ignore[union-attr]
        read = host.send(t.Read10.build(lba=0, blocks=1))
        passes = (read.status is Status.GOOD and not attention, write.status is Status.GOOD and write_cache)
        assert licences == passes, name


def test_a_closed_unit_gives_none() -> None:
    unit = memory_unit()
    host = Host.at(unit)
    unit.close()
    assert (host.nexus.fast_read, host.nexus.fast_write) == ({}, {})
