"""Which ALUs and extents a volume gets (R8)."""

from __future__ import annotations

import pytest

from appliance.messages import AluState, AluStatus
from appliance.placement import Candidates, Place
from backstores.errors import UsageError
from backstores.objects import MIB, Extent
from backstores.wwn import Wwn
from tests.support.inventory import DATA_START, GIB, alu_wwn, alus, make_alu


def candidates(*inventory: AluStatus, named: tuple[int, ...] = (), max_alus: int | None = None) -> Candidates:
    return Candidates(inventory, 512, named=wwns(*named), max_alus=max_alus)


def wwns(*numbers: int) -> tuple[Wwn, ...]:
    return tuple(alu_wwn(number) for number in numbers)


def shares(places: list[Place]) -> list[tuple[int, int]]:
    """Sum places up: (number of the ALU, MiB)."""
    return [(int(place.alu[1:], 16), place.extent.length_bytes // MIB) for place in places]


def test_equal_parts_lie_on_the_alus_with_most_room() -> None:
    """Prove R8: round robin by free space."""
    inventory = (make_alu(0, 5 * MIB), make_alu(1, 9 * MIB), make_alu(2, 7 * MIB))
    assert shares(candidates(*inventory).equal_parts(2, 4 * MIB)) == [(1, 4), (2, 4)]


def test_alus_of_equal_room_keep_their_order() -> None:
    assert shares(candidates(*alus(3)).equal_parts(3, MIB)) == [(0, 1), (1, 1), (2, 1)]


def test_named_alus_are_taken_in_their_order() -> None:
    """Prove R8: allocation by named ALUs."""
    inventory = (make_alu(0, 5 * MIB), make_alu(1, 9 * MIB), make_alu(2, 7 * MIB))
    assert shares(candidates(*inventory, named=(0, 2)).equal_parts(2, 4 * MIB)) == [(0, 4), (2, 4)]
    assert shares(candidates(*inventory, named=(2, 0)).fill(9 * MIB)) == [(2, 7), (0, 2)]
    assert shares(candidates(*inventory, named=(2, 1)).spread(2, 8 * MIB)) == [(2, 4), (1, 4)]


def test_preferred_alus_come_first() -> None:
    inventory = (make_alu(0, 5 * MIB), make_alu(1, 9 * MIB), make_alu(2, 7 * MIB))
    chosen = Candidates(inventory, 512, preferred=wwns(2, 0))
    assert shares(chosen.equal_parts(3, 4 * MIB)) == [(2, 4), (0, 4), (1, 4)]
    assert shares(chosen.equal_parts(2, 6 * MIB)) == [(2, 6), (1, 6)]


def test_an_equal_part_is_one_piece() -> None:
    inventory = (make_alu(0, *[4 * MIB] * 9), make_alu(1, 2 * MIB, 6 * MIB), make_alu(2, 5 * MIB))
    places = candidates(*inventory).equal_parts(2, 5 * MIB)
    assert places == [
        Place(alu_wwn(1), Extent(DATA_START + 3 * MIB, 5 * MIB)),
        Place(alu_wwn(2), Extent(DATA_START, 5 * MIB)),
    ]


def test_what_cannot_be_used_is_left_out() -> None:
    """Neither ALUs of others, nor those whose sectors are larger than the volume's blocks."""
    inventory = (
        make_alu(0, 9 * MIB, state=AluState.FOREIGN),
        make_alu(1, 8 * MIB, sector_bytes=4096),
        make_alu(2, 7 * MIB),
    )
    assert shares(Candidates(inventory, 512).fill(MIB)) == [(2, 1)]
    assert shares(Candidates(inventory, 4096).fill(MIB)) == [(1, 1)]


@pytest.mark.parametrize(
    ("inventory", "expected"),
    [
        pytest.param((make_alu(0, *[GIB] * 5), make_alu(1, 4 * GIB)), [(1, 4096)], id="one piece where there is one"),
        pytest.param((make_alu(0, *[GIB] * 5),), [(0, 1024)] * 4, id="else pieces of one alu"),
        pytest.param((make_alu(0, 3 * GIB), make_alu(1, 2 * GIB)), [(0, 3072), (1, 1024)], id="else several alus"),
    ],
)
def test_filling_spans_only_what_it_must(inventory: tuple[AluStatus, ...], expected: list[tuple[int, int]]) -> None:
    assert shares(candidates(*inventory).fill(4 * GIB)) == expected


@pytest.mark.parametrize(
    ("size_mib", "expected"),
    [
        pytest.param(9, [(0, 3), (1, 3), (2, 3)], id="equal"),
        pytest.param(10, [(0, 3), (1, 3), (2, 4)], id="no unit is wasted"),
        pytest.param(2, [(0, 1), (2, 1)], id="less than a unit each"),
        pytest.param(25, [(0, 10), (1, 10), (2, 5)], id="a full one"),
        pytest.param(44, [(0, 19), (1, 20), (2, 5)], id="all there is"),
    ],
)
def test_spreading_is_as_equal_as_there_is_room(size_mib: int, expected: list[tuple[int, int]]) -> None:
    inventory = (make_alu(0, 19 * MIB), make_alu(1, 20 * MIB), make_alu(2, 5 * MIB))
    places = candidates(*inventory, named=(0, 1, 2)).spread(3, size_mib * MIB)
    assert sorted(shares(places)) == expected


@pytest.mark.parametrize("max_alus", [1, 2])
def test_no_more_alus_are_spanned_than_allowed(max_alus: int) -> None:
    """Prove R8: the limit on the ALUs that a volume may span."""
    chosen = candidates(*alus(3, 10 * MIB), max_alus=max_alus)
    assert len(chosen.fill(max_alus * 10 * MIB)) == max_alus
    with pytest.raises(UsageError, match=f"are needed, {max_alus * 10} MiB are free on {max_alus} alus"):
        chosen.fill(max_alus * 10 * MIB + 1)
    with pytest.raises(UsageError, match=f"takes 3 alus, and the volume may span {max_alus}"):
        chosen.equal_parts(3, MIB)
