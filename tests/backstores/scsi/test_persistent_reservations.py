"""The service actions of PERSISTENT RESERVE OUT, and what PERSISTENT RESERVE IN tells of them."""

from __future__ import annotations

import asyncio

import pytest

from backstores.errors import CorruptError
from backstores.scsi.cdb import PersistentReserveIn, PersistentReserveOut
from backstores.scsi.model import Status
from backstores.scsi.persistent import (
    Capabilities,
    FullStatusDescriptor,
    In,
    InHeader,
    MoveParameters,
    Out,
    OutParameters,
    TransportId,
)
from backstores.scsi.reservations import MAX_REGISTRATIONS
from backstores.scsi.reservations import ReservationType as Type
from backstores.scsi.sense import Condition
from backstores.scsi.store import MemoryStore, NexusName, Registration, StoreFailed, UnitState
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.transfers import Write10
from backstores.wwn import Wwn
from tests.support.reservations import generation, keys, out, out_command, read_in, register, reservation
from tests.support.scsi import BLOCK, IQN, WWN, Host, condition, memory_unit

GONE = (Condition.REGISTRATIONS_PREEMPTED, Condition.RESERVATIONS_RELEASED, Condition.RESERVATIONS_PREEMPTED)
ONE, TWO, THREE = 0x1111, 0x2222, 0x3333


def hosts(store: MemoryStore | None = None, persist: bool = False) -> tuple[Host, Host, Host]:
    """Log three hosts in and register them."""
    unit = memory_unit(store=store)
    found = tuple(Host.at(unit, name) for name in "abc")
    for host, key in zip(found, (ONE, TWO, THREE), strict=True):
        register(host, key, persist=persist)
    return found[0], found[1], found[2]


def test_register_wants_the_key_that_is_registered() -> None:
    host = Host.at(memory_unit())
    assert out(host, Out.REGISTER, 5, ONE) is Status.RESERVATION_CONFLICT
    assert out(host, Out.REGISTER, 0, ONE) is Status.GOOD
    assert out(host, Out.REGISTER, 0, TWO) is Status.RESERVATION_CONFLICT
    assert out(host, Out.REGISTER, ONE, TWO) is Status.GOOD
    assert keys(host) == [TWO]
    assert out(host, Out.REGISTER, TWO, 0) is Status.GOOD
    assert keys(host) == []


def test_the_generation_counts_changes_of_registrations() -> None:
    """SPC-4 clause 6.15.2: RESERVE and RELEASE do not count."""
    one, *_ = hosts()
    before = generation(one)
    out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
    out(one, Out.RELEASE, ONE, type_=Type.WRITE_EXCLUSIVE)
    assert generation(one) == before
    for count, (action, action_key) in enumerate([(Out.REGISTER, ONE), (Out.PREEMPT, TWO), (Out.CLEAR, 0)], 1):
        assert out(one, action, ONE, action_key, Type.WRITE_EXCLUSIVE) is Status.GOOD
        assert generation(one) == before + count


@pytest.mark.parametrize("action", [Out.RESERVE, Out.RELEASE, Out.CLEAR, Out.PREEMPT, Out.PREEMPT_AND_ABORT])
def test_who_is_not_registered_is_in_conflict(action: Out) -> None:
    hosts_ = hosts()
    out(hosts_[2], Out.REGISTER, THREE, 0)
    assert out(hosts_[2], action, THREE, ONE, Type.WRITE_EXCLUSIVE) is Status.RESERVATION_CONFLICT
    assert out(hosts_[1], action, ONE, ONE, Type.WRITE_EXCLUSIVE) is Status.RESERVATION_CONFLICT


def test_reserve_again() -> None:
    one, two, _ = hosts()
    assert out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS) is Status.GOOD
    assert out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS) is Status.GOOD
    assert out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE) is Status.RESERVATION_CONFLICT
    assert out(two, Out.RESERVE, TWO, type_=Type.EXCLUSIVE_ACCESS) is Status.RESERVATION_CONFLICT
    assert reservation(one) == (ONE, Type.EXCLUSIVE_ACCESS)


def test_release_takes_the_same_type() -> None:
    one, two, three = hosts()
    out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert (
        out(two, Out.RELEASE, TWO, type_=Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY) is Status.GOOD
    )  # no holder: no effect
    assert one.refused(*out_command(Out.RELEASE, ONE, 0, Type.WRITE_EXCLUSIVE)) is Condition.INVALID_RELEASE
    assert reservation(one) is not None
    assert out(one, Out.RELEASE, ONE, type_=Type.WRITE_EXCLUSIVE_REGISTRANTS_ONLY) is Status.GOOD
    assert reservation(one) is None
    assert [host.hear() for host in (one, two, three)] == [
        [],
        [Condition.RESERVATIONS_RELEASED],
        [Condition.RESERVATIONS_RELEASED],
    ]


@pytest.mark.parametrize("type_", Type, ids=lambda type_: type_.name.lower())
def test_a_holder_that_unregisters(type_: Type) -> None:
    """SPC-4 clause 5.12.11.1.2: the reservation goes with its last holder; registrants that had rights hear of it."""
    one, two, _ = hosts()
    out(one, Out.RESERVE, ONE, type_=type_)
    out(one, Out.REGISTER, ONE, 0)
    if type_.all_registrants:
        assert reservation(one) == (0, type_)
        assert two.hear() == []
    else:
        assert reservation(one) is None
        assert two.hear() == ([Condition.RESERVATIONS_RELEASED] if type_.open_to_registrants else [])


def test_an_all_registrants_reservation_ends_with_the_last_one() -> None:
    all_hosts = hosts()
    out(all_hosts[0], Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS_ALL_REGISTRANTS)
    for host, key in zip(all_hosts, (ONE, TWO, THREE), strict=True):
        assert reservation(host) is not None
        out(host, Out.REGISTER, key, 0)
    assert reservation(all_hosts[0]) is None


def test_clear() -> None:
    one, two, _ = hosts()
    out(two, Out.RESERVE, TWO, type_=Type.EXCLUSIVE_ACCESS)
    assert out(one, Out.CLEAR, ONE) is Status.GOOD
    assert (keys(one), reservation(one)) == ([], None)
    assert (one.hear(), two.hear()) == ([], [Condition.RESERVATIONS_PREEMPTED])


class TestPreempt:
    """SPC-4 clause 5.12.11.2."""

    def test_of_the_holder(self) -> None:
        one, two, three = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
        assert out(two, Out.PREEMPT, TWO, ONE, Type.EXCLUSIVE_ACCESS) is Status.GOOD
        assert reservation(two) == (TWO, Type.EXCLUSIVE_ACCESS)
        assert keys(two) == [TWO, THREE]
        assert one.hear() == [Condition.REGISTRATIONS_PREEMPTED]
        assert three.hear() == [Condition.RESERVATIONS_RELEASED]  # for the type is another one

    def test_with_the_same_type_takes_nothing_from_third_ones(self) -> None:
        one, two, three = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
        assert out(two, Out.PREEMPT, TWO, ONE, Type.WRITE_EXCLUSIVE) is Status.GOOD
        assert three.hear() == []

    def test_of_another_registrant(self) -> None:
        one, two, three = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
        assert out(two, Out.PREEMPT, TWO, THREE, Type.EXCLUSIVE_ACCESS) is Status.GOOD
        assert reservation(two) == (ONE, Type.WRITE_EXCLUSIVE)
        assert keys(two) == [ONE, TWO]
        assert three.hear() == [Condition.REGISTRATIONS_PREEMPTED]

    def test_of_oneself_changes_the_type(self) -> None:
        one, two, _ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
        assert out(one, Out.PREEMPT, ONE, ONE, Type.EXCLUSIVE_ACCESS) is Status.GOOD
        assert reservation(one) == (ONE, Type.EXCLUSIVE_ACCESS)
        assert keys(one) == [ONE, TWO, THREE]
        assert two.hear() == [Condition.RESERVATIONS_RELEASED]

    def test_of_all_by_zero(self) -> None:
        one, two, _ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
        assert out(two, Out.PREEMPT, TWO, 0, Type.WRITE_EXCLUSIVE) is Status.GOOD
        assert (keys(two), reservation(two)) == ([TWO], (TWO, Type.WRITE_EXCLUSIVE))

    def test_zero_means_nothing_else(self) -> None:
        one, two, _ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.WRITE_EXCLUSIVE)
        found = two.refused(*out_command(Out.PREEMPT, TWO, 0, Type.WRITE_EXCLUSIVE))
        assert found is Condition.INVALID_FIELD_IN_PARAMETERS

    def test_of_a_key_that_nobody_has(self) -> None:
        one, *_ = hosts()
        assert out(one, Out.PREEMPT, ONE, 0x9999, Type.WRITE_EXCLUSIVE) is Status.RESERVATION_CONFLICT


def move(to: str, new_key: int = 9, port: int = 1, unregister: bool = False, key: int = ONE) -> tuple[bytes, bytes]:
    """Make the CDB and the parameter list of REGISTER AND MOVE."""
    name = (to.encode() + b"\0" * (4 - len(to) % 4))[: TransportId.length.mask]
    transport_id = TransportId.build(name_format=1, length=len(name)) + name
    data = MoveParameters.build(
        key=key,
        action_key=new_key,
        unregister=unregister,
        relative_port=port,
        transport_id_length=len(transport_id),
    )
    data += transport_id
    return PersistentReserveOut.build(service_action=Out.REGISTER_AND_MOVE, parameter_bytes=len(data)), data


class TestRegisterAndMove:
    """SPC-4 clause 5.12.8."""

    def test_hands_the_reservation_over(self) -> None:
        one, two, _ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        one.good(*move(two.nexus.name.initiator_port, unregister=True))
        assert keys(two) == [9, THREE]
        assert reservation(two) == (9, Type.EXCLUSIVE_ACCESS)
        assert two.status(Write10.build(blocks=1), bytes(BLOCK)) is Status.GOOD
        assert one.status(Write10.build(blocks=1), bytes(BLOCK)) is Status.RESERVATION_CONFLICT

    def test_only_the_holder_can(self) -> None:
        one, two, _ = hosts()
        assert one.status(*move("iqn.x,i,0x1")) is Status.RESERVATION_CONFLICT
        out(two, Out.RESERVE, TWO, type_=Type.EXCLUSIVE_ACCESS)
        assert one.status(*move("iqn.x,i,0x1")) is Status.RESERVATION_CONFLICT

    @pytest.mark.parametrize(
        ("to", "new_key"),
        [
            pytest.param("self", 9, id="itself"),
            pytest.param("iqn.x,i,0x1", 0, id="no key"),
            pytest.param("iqn.x", 9, id="no port name"),
            pytest.param("iqn.x,i,0x" + "1" * 13, 9, id="an ISID that is too long"),
            pytest.param("iqn.x\x1b[2J,i,0x1", 9, id="a control character"),
            pytest.param("iqn.x y,i,0x1", 9, id="a blank"),
            pytest.param("x" * 224 + ",i,0x" + "1" * 12, 9, id="a name of 224 bytes"),
            pytest.param("x" * 65_530 + ",i,0x", 9, id="as long as the field allows"),
        ],
    )
    def test_bad_parameters(self, to: str, new_key: int) -> None:
        """S3: what is not a port's name is not kept, for READ FULL STATUS would tell it to every host."""
        one, *_ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        to = one.nexus.name.initiator_port if to == "self" else to
        assert one.refused(*move(to, new_key)) is Condition.INVALID_FIELD_IN_PARAMETERS
        assert reservation(one) == (ONE, Type.EXCLUSIVE_ACCESS)

    def test_the_longest_name_there_is(self) -> None:
        one, *_ = hosts()
        out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        to = "x" * 223 + ",i,0x" + "1" * 12
        one.good(*move(to))
        assert to.encode() in read_in(one, In.READ_FULL_STATUS)

    def test_a_length_that_does_not_fit(self) -> None:
        one, *_ = hosts()
        _, data = move("iqn.x,i,0x1")
        cdb = PersistentReserveOut.build(service_action=Out.REGISTER_AND_MOVE, parameter_bytes=len(data) - 4)
        assert one.refused(cdb, data) is Condition.PARAMETER_LIST_LENGTH_ERROR


def test_full_status_names_the_nexuses() -> None:
    one, *_ = hosts()
    out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
    data = read_in(one, In.READ_FULL_STATUS)[InHeader.SIZE :]
    first = FullStatusDescriptor.parse(data)
    assert (first.key, first.holder, first.reservation_type, first.relative_port) == (ONE, 1, 3, 1)
    end = FullStatusDescriptor.SIZE + first.additional_length
    header = TransportId.parse(data, FullStatusDescriptor.SIZE)
    assert (header.name_format, header.length % 4) == (1, 0)
    name = data[FullStatusDescriptor.SIZE + TransportId.SIZE : end]
    assert name.rstrip(b"\0").decode() == one.nexus.name.initiator_port
    second = FullStatusDescriptor.parse(data, end)
    assert (second.key, second.holder, second.reservation_type) == (TWO, 0, 0)


def test_capabilities() -> None:
    one, *_ = hosts()
    assert read_in(one, In.REPORT_CAPABILITIES) == bytes.fromhex("0008 15 80 ea01 0000")
    register(one, ONE, persist=True)
    assert Capabilities.parse(read_in(one, In.REPORT_CAPABILITIES)).persist_active


def test_all_target_ports() -> None:
    """ALL_TG_PT: the initiator port is registered at each port of the device."""
    nexus = TargetDevice(IQN, (1, 2)).open_nexus("iqn.x,i,0x1", {0: Exposed(memory_unit())}, relative_port=2)
    host = Host(nexus)
    host.hear()
    host.good(*out_command(Out.REGISTER, 0, ONE, all_ports=True))
    assert keys(host) == [ONE, ONE]


BAD = {
    "shorter": (PersistentReserveOut.build(parameter_bytes=23), bytes(23), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "longer": (PersistentReserveOut.build(parameter_bytes=32), bytes(32), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "less data": (PersistentReserveOut.build(parameter_bytes=24), bytes(8), Condition.PARAMETER_LIST_LENGTH_ERROR),
    "SPEC_I_PT": (
        PersistentReserveOut.build(parameter_bytes=24),
        OutParameters.build(specify_initiator_ports=1),
        Condition.INVALID_FIELD_IN_PARAMETERS,
    ),
    "a type that is none": (
        PersistentReserveOut.build(parameter_bytes=24, service_action=Out.RESERVE, reservation_type=2),
        OutParameters.build(key=ONE),
        Condition.INVALID_FIELD_IN_CDB,
    ),
    "another scope": (
        PersistentReserveOut.build(parameter_bytes=24, service_action=Out.RESERVE, reservation_type=1, scope=1),
        OutParameters.build(key=ONE),
        Condition.INVALID_FIELD_IN_CDB,
    ),
    "service action 8 out": (PersistentReserveOut.build(service_action=8), b"", Condition.INVALID_FIELD_IN_CDB),
    "service action 4 in": (PersistentReserveIn.build(service_action=4), b"", Condition.INVALID_FIELD_IN_CDB),
}


@pytest.mark.parametrize(("cdb", "data", "found"), BAD.values(), ids=BAD.keys())
def test_bad_parameters(cdb: bytes, data: bytes, found: Condition) -> None:
    one, *_ = hosts()
    assert one.refused(cdb, data) is found
    assert keys(one) == [ONE, TWO, THREE]


def test_registrations_are_bounded() -> None:
    """S1: no host fills our memory with names."""
    unit = memory_unit()
    target = TargetDevice(IQN, tuple(range(1, MAX_REGISTRATIONS + 2)))
    host = Host(target.open_nexus("iqn.x,i,0x1", {0: Exposed(unit)}))
    host.hear()
    assert host.refused(*out_command(Out.REGISTER, 0, ONE, all_ports=True)) is Condition.REGISTRATION_FULL


class TestPersistence:
    """APTPL: kept over a restart, durable before GOOD (M6)."""

    def test_with_it_all_comes_back(self) -> None:
        store = MemoryStore()
        one, *_ = hosts(store, persist=True)
        out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        unit = memory_unit(store=store)
        again, other = Host.at(unit, "a"), Host.at(unit, "z")
        assert (keys(again), reservation(again)) == ([ONE, TWO, THREE], (ONE, Type.EXCLUSIVE_ACCESS))
        again.good(Write10.build(blocks=1), bytes(BLOCK))
        assert other.status(Write10.build(blocks=1), bytes(BLOCK)) is Status.RESERVATION_CONFLICT

    def test_and_goes_on_being_kept(self) -> None:
        store = MemoryStore()
        hosts(store, persist=True)
        again = Host.at(memory_unit(store=store), "a")
        out(again, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        assert reservation(Host.at(memory_unit(store=store), "a")) == (ONE, Type.EXCLUSIVE_ACCESS)

    def test_without_it_nothing_does(self) -> None:
        store = MemoryStore()
        one, *_ = hosts(store, persist=True)
        register(one, ONE, persist=False)
        again = Host.at(memory_unit(store=store), "a")
        assert (keys(again), reservation(again)) == ([], None)

    def test_no_need_to_write_what_is_not_kept(self) -> None:
        store = MemoryStore()
        one, *_ = hosts(store)
        out(one, Out.RESERVE, ONE, type_=Type.EXCLUSIVE_ACCESS)
        assert store.saves == 0

    def test_what_can_not_be_stored_has_not_happened(self) -> None:
        class Full(MemoryStore):
            async def save(self, wwn: Wwn, state: UnitState) -> None:
                raise StoreFailed("disk full")

        host = Host.at(memory_unit(store=Full()))
        response = host.send(*out_command(Out.REGISTER, 0, ONE, persist=True))
        assert condition(response) is Condition.INTERNAL_TARGET_FAILURE
        assert keys(host) == []

    @pytest.mark.parametrize(
        "state",
        [
            UnitState(reservation_type=2),
            UnitState(reservation_type=1),
            UnitState(reservation_type=7),
            UnitState(registrations=(Registration(NexusName("a", 1), ONE),), reservation_type=1),
            UnitState(
                registrations=(Registration(NexusName("a", 1), ONE),),
                reservation_type=7,
                holder=NexusName("a", 1),
            ),
        ],
        ids=["no such type", "nobody holds it", "nobody registered", "no holder", "a holder of an all-registrants one"],
    )
    def test_a_state_that_can_not_be_is_refused(self, state: UnitState) -> None:
        store = MemoryStore()
        store.states[WWN] = state
        with pytest.raises(CorruptError):
            memory_unit(store=store)

    def test_a_host_that_goes_meanwhile_tears_nothing_apart(self) -> None:
        """A connection that breaks during the save leaves memory and store saying the same."""
        asyncio.run(self._break_during_save())

    async def _break_during_save(self) -> None:
        class Slow(MemoryStore):
            def __init__(self) -> None:
                super().__init__()
                self.begun, self.go_on = asyncio.Event(), asyncio.Event()

            async def save(self, wwn: Wwn, state: UnitState) -> None:
                self.begun.set()
                await self.go_on.wait()
                await super().save(wwn, state)

        store = Slow()
        unit = memory_unit(store=store)
        host = Host.at(unit, greet=False)
        await host.execute(bytes(6))
        command = asyncio.create_task(host.execute(*out_command(Out.REGISTER, 0, ONE, persist=True)))
        await store.begun.wait()
        command.cancel()
        host.nexus.close()
        with pytest.raises(asyncio.CancelledError):
            await command
        store.go_on.set()
        while not store.states:
            await asyncio.sleep(0)
        (kept,) = store.states.values()
        assert {registration.nexus: registration.key for registration in kept.registrations} == unit.reservations.keys
        assert list(unit.reservations.keys.values()) == [ONE]
