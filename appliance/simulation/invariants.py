"""What must hold at every moment, and what must hold once all has been quiet for a while."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from appliance.control.values import InstanceState, Role
from appliance.simulation.plane import Instance, SimPlane
from appliance.simulation.system import System
from appliance.vcm.placement import Placement, Plant, place, serving
from backstores.objects import MirrorObject
from backstores.wwn import Wwn, short

WRITERS = frozenset({Role.ALONE, Role.LEAD})


class BrokenInvariant(AssertionError):
    """The control plane has done what it must never do."""


def planes(system: System) -> Iterator[SimPlane]:
    """Yield the data planes of all processes that live, asleep or not: those may wake."""
    for process in system.processes.values():
        yield process.plane


def at_every_moment(system: System) -> None:
    """Check what must hold after each event.

    Raises:
        BrokenInvariant: something does not.
    """
    instances: dict[Wwn, list[tuple[str, Instance]]] = defaultdict(list)
    homes: dict[Wwn, str] = {}
    for plane in planes(system):
        for volume, instance in plane.t2.items():
            if instance.state is InstanceState.ON_LINE and _reaches(system, plane, instance):
                instances[volume].append((plane.sp, instance))
            if any(exposure.volume != volume for exposure in instance.show.exposures):
                raise BrokenInvariant(f"{plane.sp} shows something else than a volume to hosts")
        for partitions in plane.t1.values():
            for partition in partitions:
                if plane.shelf.by_wwn[partition.alu].holder is not plane:
                    raise BrokenInvariant(f"{plane.sp} serves {short(partition.wwn)} without having its alu open")
                if homes.setdefault(partition.wwn, plane.sp) != plane.sp:
                    raise BrokenInvariant(f"{short(partition.wwn)} is served by {plane.sp} and {homes[partition.wwn]}")
    for volume, on_line in instances.items():
        _agree(volume, on_line)


def _reaches(system: System, plane: SimPlane, instance: Instance) -> bool:
    """Whether an instance can read or write anything: one that nobody lets in any more harms nobody."""
    volume = instance.made.volume
    targets = {reference.sp for reference in instance.made.references} & system.processes.keys()
    shown = any(plane.sp in system.processes[name].plane.shown_to.get(volume, ()) for name in targets)
    return shown or volume in plane.t1


def _agree(volume: Wwn, on_line: list[tuple[str, Instance]]) -> None:
    """All that serve a volume have the same tree, and at most one orders the writes of the others (D3, D4)."""
    if len({instance.made.objects for _, instance in on_line}) > 1:
        raise BrokenInvariant(f"volume {short(volume)} is on line as different trees at {_names(on_line)}")
    writers = [(sp, instance) for sp, instance in on_line if instance.made.role in WRITERS]
    if len(writers) > 1 or (len(on_line) > 1 and any(one.made.role is Role.ALONE for _, one in on_line)):
        raise BrokenInvariant(f"nobody orders the writes of volume {short(volume)} at {_names(on_line)}")
    if len(on_line) > 1 and any(one.made.role is Role.FREE for _, one in on_line):
        mirrored = any(isinstance(obj, MirrorObject) for obj in on_line[0][1].made.objects)
        if mirrored:
            raise BrokenInvariant(f"volume {short(volume)} has mirrors, and is written by {_names(on_line)} at will")


def _names(on_line: list[tuple[str, Instance]]) -> str:
    return ", ".join(f"{sp} ({instance.made.role})" for sp, instance in on_line)


def built_whole(system: System, plane: SimPlane, volume: Wwn) -> None:
    """Check that a volume which goes on line finds all that it stands on.

    Raises:
        BrokenInvariant: it does not.
    """
    made = plane.t2[volume].made
    here = {obj.wwn for obj in plane.t1.get(volume, ())}
    references = {reference.object: reference.sp for reference in made.references}
    for partition in serving(made.objects):
        home = references.get(partition.wwn)
        if home is None and partition.wwn not in here:
            raise BrokenInvariant(f"{plane.sp} serves volume {short(volume)} without {short(partition.wwn)}")
        process = system.processes.get(home) if home is not None else None
        if process is not None and process.plane.t1.get(volume):  # else it has died just now
            there = {obj.wwn for obj in process.plane.t1[volume]}
            if partition.wwn not in there or plane.sp not in process.plane.shown_to.get(volume, ()):
                raise BrokenInvariant(f"{home} does not show {short(partition.wwn)} to {plane.sp}")


def after_quiet(system: System) -> None:
    """Check that what runs is what should run, and that every command has ended.

    Raises:
        BrokenInvariant: it is not so.
    """
    assert system.mic is not None
    if system.mic.pending:
        asked = [type(system.mic.asked[number]).__name__ for number in sorted(system.mic.pending)]
        raise BrokenInvariant(f"not answered: {', '.join(asked)}")
    wanted = _wanted(system)
    for plane in planes(system):
        t2 = {volume: placement.t2[plane.sp] for volume, placement in wanted.items() if plane.sp in placement.t2}
        t1 = {volume: set(placement.t1[plane.sp]) for volume, placement in wanted.items() if plane.sp in placement.t1}
        if {volume: set(objects) for volume, objects in plane.t1.items()} != t1:
            raise BrokenInvariant(f"{plane.sp} has other first-tier objects than it should")
        for volume, instance in plane.t2.items():
            if volume not in t2 or instance.made.likeness != t2[volume].likeness:
                raise BrokenInvariant(f"{plane.sp} runs volume {short(volume)} as it should not")
            if instance.state is not InstanceState.ON_LINE:
                raise BrokenInvariant(f"volume {short(volume)} is {instance.state} at {plane.sp}")
        if set(plane.t2) != set(t2):
            raise BrokenInvariant(f"{plane.sp} does not serve {[short(volume) for volume in set(t2) - set(plane.t2)]}")
        for volume in plane.t1:
            if plane.shown_to.get(volume, frozenset()) != set(wanted[volume].referrers(plane.sp)):
                raise BrokenInvariant(f"{plane.sp} shows volume {short(volume)} to others than it should")


def _wanted(system: System) -> dict[Wwn, Placement]:
    """Place all volumes that are stored, by what there is now."""
    assert system.mic is not None
    holders = {alu.wwn: alu.holder.sp for alu in system.shelf.alus.values() if alu.holder is not None}
    plant = Plant(holders.get, lambda sp: system.processes[sp].core.identity.incarnation)
    wanted: dict[Wwn, Placement] = {}
    for volume, objects in system.shelf.trees().items():
        show = system.mic.shows.get(volume)
        facing = list(dict.fromkeys(sp for exposure in (show.exposures if show else ()) for sp in exposure.sps))
        placement = place(objects, facing, plant)
        if not isinstance(placement, Placement):
            raise BrokenInvariant(placement.reason)
        wanted[volume] = placement
    return wanted
