"""Which links are severed when a part of the system has failed (R19)."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from appliance.fabric.faults import Link, check_part, lost_alus, possible, severed
from appliance.topologyfile import generate, read_topology
from backstores.errors import UsageError

TOPOLOGY = generate(2)
WITH_ALUS = read_topology(
    "{sps: 2, alus: [{name: both, path: both}, {name: left, path: left, fabrics: [stoA]}]}", PurePath("/")
)

SEVERED = {
    "a link": (["link:sp1/int1"], {("sp1", "int1")}),
    "a port": (["port:sp2/hostA"], {("sp2", "hostA")}),
    "a fabric": (["fabric:stoB"], {("sp1", "stoB"), ("sp2", "stoB")}),
    "a fabric and a link of it": (["fabric:int1", "link:sp1/int1"], {("sp1", "int1"), ("sp2", "int1")}),
    "processes": (["sp:sp1", "blade:b1"], set()),
    "nothing": ([], set()),
}


@pytest.mark.parametrize(("parts", "links"), SEVERED.values(), ids=SEVERED)
def test_a_part_severs_its_links(parts: list[str], links: set[tuple[str, str]]) -> None:
    assert severed(parts, TOPOLOGY) == {Link(*link) for link in links}


def reached(*parts: str, sp: str = "sp1") -> str:
    """Name the ALUs that an SP can reach."""
    lost = lost_alus(parts, WITH_ALUS, sp)
    return " ".join(alu.name for alu in WITH_ALUS.alus if alu.path not in lost)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ([], "both left"),
        (["alu:both"], "left"),
        (["link:sp1/stoA"], "both"),
        (["fabric:stoA"], "both"),
        (["link:sp1/stoB"], "both left"),
        (["fabric:stoA", "link:sp1/stoB"], ""),
        (["link:sp2/stoA", "link:sp2/stoB"], "both left"),
        (["fabric:int1"], "both left"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
def test_an_alu_is_lost_with_the_last_way_to_it(parts: list[str], names: str) -> None:
    """R19: a storage device has two port controllers."""
    assert reached(*parts) == names


def test_a_link_that_two_parts_sever_comes_back_with_the_second() -> None:
    both = ["fabric:int1", "link:sp1/int1"]
    for part in both:
        assert Link("sp1", "int1") in severed(set(both) - {part}, TOPOLOGY)


@pytest.mark.parametrize("kind", possible(TOPOLOGY))
def test_what_is_listed_can_be_failed(kind: str) -> None:
    for name in possible(TOPOLOGY)[kind]:
        check_part(f"{kind}:{name}", TOPOLOGY)


BAD = {
    "a word": (
        "everything",
        "'everything' is no part that can be failed: link:…, port:…, fabric:…, sp:…, blade:…, alu:…",
    ),
    "another kind": ("disk:a0", "'disk:a0' is no part that can be failed"),
    "an SP that there is not": ("sp:sp3", "there is no sp 'sp3'; there is sp1, sp2"),
    "a link to nothing": ("link:sp1/int3", "there is no link 'sp1/int3'; there is sp1/int1, sp1/int2"),
    "a port of no host": ("port:sp1/int1", "there is no port 'sp1/int1'; there is sp1/hostA, sp1/hostB"),
}


@pytest.mark.parametrize(("part", "message"), BAD.values(), ids=BAD)
def test_what_is_no_part_is_told_with_what_is_possible(part: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_part(part, TOPOLOGY)
    assert message in str(refused.value)
