"""Makes docs/control-plane.md out of the tables of the control plane's state machines.

python -m appliance.vcm.document > docs/control-plane.md
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance import mvsm, vom
from appliance.vcm import mastership, peers, volume
from appliance.vcm.stages import RULES

Table = Mapping[Any, Mapping[Any, enum.StrEnum]]  # of one enumeration's members: Mapping is invariant in its keys

HEAD: Final = """# The control plane's state machines

Made from the tables in `appliance` by `python -m appliance.vcm.document`; don't edit it.

A state machine is an enumeration and one table. What the table lacks can't happen, or is refused. The diagrams show
what leads from one state to another; events that leave a state as it is are listed below each.
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A state machine to be shown."""

    title: str
    where: str
    about: str
    table: Table


MACHINES: Final = (
    Machine(
        "A storage processor, as the VCM sees it",
        "appliance/vcm/peers.py",
        "Silence moves the mastership at once. What a storage processor serves is served elsewhere only when its\n"
        "death is certain; one that stays silent is ended.",
        peers.TRANSITIONS,
    ),
    Machine(
        "The mastership",
        "appliance/vcm/mastership.py",
        "Steps 508 to 518. Whatever goes wrong on the way leads back to an election, in a higher epoch.",
        mastership.TRANSITIONS,
    ),
    Machine(
        "A volume, as the VCM sees it",
        "appliance/vcm/volume.py",
        "Initialization, creation, change and removal. What is ordered in each follows from the stages below.",
        volume.TRANSITIONS,
    ),
    Machine(
        "A change under I/O",
        "appliance/vcm/volume.py",
        "Quiesce, steps 1502 to 1512: all that serve a volume hold it, the tree changes or does not, all go on.",
        volume.PAUSES,
    ),
    Machine(
        "A volume's second tier at a storage processor",
        "appliance/vom.py",
        "What orders do to an instance. An order that the table lacks is refused.",
        vom.TRANSITIONS,
    ),
    Machine(
        "The MVSM",
        "appliance/mvsm.py",
        "Dormant on all storage processors but one.",
        mvsm.TRANSITIONS,
    ),
)


def document() -> str:
    """Give the whole document."""
    return "\n".join([HEAD, *(line for machine in MACHINES for line in _machine(machine)), *_stages()]) + "\n"


def _machine(machine: Machine) -> Iterator[str]:
    yield f"## {machine.title}\n"
    yield f"{machine.about} (`{machine.where}`)\n"
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {_id(next(iter(machine.table)))}"
    for state in machine.table:
        yield f'    state "{state}" as {_id(state)}'
    for state, ways in machine.table.items():
        for target in dict.fromkeys(ways.values()):
            events = [event.value for event, end in ways.items() if end is target and target is not state]
            if events:
                yield f"    {_id(state)} --> {_id(target)}: {', '.join(events)}"
    yield "```\n"
    for state, ways in machine.table.items():
        events = [event.value for event, end in ways.items() if end is state]
        if events:
            yield f"- *{state}* stays so at: {', '.join(events)}"
    yield ""


def _id(state: enum.StrEnum) -> str:
    return state.name


def _stages() -> Iterator[str]:
    yield "## The stages of a volume\n"
    yield (
        "What is ordered next: the first of these that finds a difference between what runs and what should run. Its\n"
        "orders go out side by side; when all are answered, the next stage is looked for (`appliance/vcm/stages.py`).\n"
    )
    yield "| stage | what it does |"
    yield "|---|---|"
    for step, rule in RULES.items():
        yield f"| {step} | {(rule.__doc__ or '').strip()} |"


if __name__ == "__main__":
    print(document(), end="")
