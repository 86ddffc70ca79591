"""Requests and the trees that the VBM makes of them (R7, R8, R11)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from appliance.messages import AluState, AluStatus
from appliance.vbm import VolumeRequest, build_volume
from backstores.errors import UsageError
from backstores.objects import (
    MIB,
    AnyObject,
    ConcatObject,
    Extent,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.transforms.tree import build
from backstores.wwn import Wwn
from tests.support.inventory import DATA_START, GIB, alu_wwn, alus, make_alu, taken

Sketch = str | int | tuple[object, ...]


def request(layout: str = "linear", size_bytes: int = GIB, **more: object) -> VolumeRequest:
    return VolumeRequest(name="db", size_bytes=size_bytes, layout=layout, **more)  # type: ignore[arg-type]


def named(*numbers: int) -> tuple[Wwn, ...]:
    return tuple(alu_wwn(number) for number in numbers)


def sketch(objects: Sequence[AnyObject]) -> Sketch:
    """Draw a tree as nested tuples: kinds, and the numbers of the ALUs."""
    by_wwn = {item.wwn: item for item in objects}

    def draw(wwn: Wwn) -> Sketch:
        item = by_wwn[wwn]
        if isinstance(item, PartitionObject):
            return int(item.alu[1:], 16)
        return (type(item).__name__.removesuffix("Object").lower(), *(draw(child) for child in item.children))

    volume = objects[0]
    assert isinstance(volume, VolumeObject)
    return draw(volume.root)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(request("linear"), 0, id="linear"),
        pytest.param(request("concat"), ("concat", 0, 1), id="concat"),
        pytest.param(request("concat", width=3), ("concat", 0, 1, 2), id="concat of three"),
        pytest.param(request("concat", alus=named(3, 1, 2)), ("concat", 3, 1, 2), id="concat of named"),
        pytest.param(request("stripe"), ("stripe", 0, 1), id="stripe"),
        pytest.param(request("stripe", width=4), ("stripe", 0, 1, 2, 3), id="wide stripe"),
        pytest.param(request("mirror"), ("mirror", 0, 1), id="mirror"),
        pytest.param(request("mirror", legs=3), ("mirror", 0, 1, 2), id="three legs"),
        pytest.param(request("mirror", alus=named(3, 0)), ("mirror", 3, 0), id="mirror of named"),
        pytest.param(
            request("stripe-mirror", alus=named(0, 1, 2, 3)),
            ("stripe", ("mirror", 0, 1), ("mirror", 2, 3)),
            id="stripe-mirror",
        ),
        pytest.param(
            request("stripe-mirror", alus=named(3, 2, 1, 0)),
            ("stripe", ("mirror", 3, 2), ("mirror", 1, 0)),
            id="stripe-mirror in the order given",
        ),
    ],
)
def test_every_layout_has_its_tree(asked: VolumeRequest, expected: Sketch) -> None:
    """Prove R7, R11: a request becomes the tree of its layout, on the named ALUs in their order."""
    built = build_volume(asked, alus(4))
    assert sketch(built.objects) == expected
    assert build(built.objects).blocks == GIB // 512
    assert built.notes == ()


def test_the_volume_object_says_what_was_asked() -> None:
    asked = request("stripe-mirror", block_bytes=4096, created="2026-01-01T00:00:00Z")
    volume = build_volume(asked, alus(4)).objects[0]
    assert isinstance(volume, VolumeObject)
    assert (volume.name, volume.layout, volume.block_bytes) == ("db", "stripe-mirror", 4096)
    assert (volume.blocks, volume.created, volume.generation) == (GIB // 4096, "2026-01-01T00:00:00Z", 1)


def test_names_come_from_the_random_source() -> None:
    numbers = iter(range(1, 100))
    built = build_volume(request("stripe"), alus(2), random_bits=lambda bits: next(numbers))
    assert sorted(int(item.wwn[-8:], 16) for item in built.objects) == [1, 2, 3, 4]


def test_a_mirror_leg_has_its_bitmap_behind_its_data() -> None:
    """D2 needs room for dirty bits on every leg."""
    parts = [item for item in build_volume(request("mirror"), alus(2)).objects if isinstance(item, PartitionObject)]
    for part in parts:
        assert part.extent == Extent(DATA_START, GIB)
        assert part.bitmap == Extent(DATA_START + GIB, MIB)


def test_partitions_outside_mirrors_have_no_bitmap() -> None:
    parts = [item for item in build_volume(request("stripe"), alus(2)).objects if isinstance(item, PartitionObject)]
    assert [part.bitmap for part in parts] == [None, None]


@pytest.mark.parametrize(
    ("asked", "size_bytes"),
    [
        pytest.param(request("linear", 10**9), 10**9 // 4096 * 4096, id="linear, whole pages"),
        pytest.param(request("mirror", 10**9), 10**9 // 4096 * 4096, id="mirror, whole pages"),
        pytest.param(request("stripe", 10**9), 10**9 // 131072 * 131072, id="stripe, whole rows"),
        pytest.param(request("stripe", 10**9, width=3), 10**9 // 196608 * 196608, id="rows of three"),
        pytest.param(request("stripe-mirror", 10**9, chunk_bytes=16 * MIB), 29 * 32 * MIB, id="large chunks"),
    ],
)
def test_sizes_are_rounded_down_and_the_user_is_told(asked: VolumeRequest, size_bytes: int) -> None:
    """Prove R11: no more is promised than whole chunk rows hold; extents are whole MiB."""
    built = build_volume(asked, alus(4))
    assert build(built.objects).blocks * 512 == size_bytes
    [note] = built.notes
    assert note.startswith(f"size is rounded down from 1000000000 to {size_bytes} bytes")
    for _, extent in taken(built.objects):
        assert extent.start_bytes % MIB == extent.length_bytes % MIB == 0


def test_a_volume_can_have_nearly_8_eib() -> None:
    inventory = [make_alu(number, 1 << 62) for number in range(3)]
    built = build_volume(request("stripe", (1 << 63) - 1, width=3), inventory)
    assert build(built.objects).blocks * 512 == ((1 << 63) - 1) // 196608 * 196608


def test_the_kinds_of_objects_carry_their_sizes() -> None:
    objects = build_volume(request("stripe-mirror"), alus(4)).objects
    [stripe] = [item for item in objects if isinstance(item, StripeObject)]
    mirrors = [item for item in objects if isinstance(item, MirrorObject)]
    assert (stripe.chunk_blocks, stripe.blocks) == (128, GIB // 512)
    assert [mirror.blocks for mirror in mirrors] == [GIB // 1024] * 2
    assert not [item for item in objects if isinstance(item, ConcatObject)]


SMALL = alus(3, 100 * MIB)
ODD = [*alus(2), make_alu(2, GIB, state=AluState.FOREIGN), make_alu(3, GIB, sector_bytes=4096)]


@pytest.mark.parametrize(
    ("asked", "inventory", "message"),
    [
        pytest.param(request("raid6"), alus(4), "layout 'raid6' is not known: take linear, concat", id="layout"),
        pytest.param(
            request(size_bytes=0), alus(1), "size 0 is too small: the least of this layout is 4K", id="no size"
        ),
        pytest.param(request(size_bytes=-1), alus(1), "size -1 is too small", id="negative size"),
        pytest.param(request("stripe", 131071), alus(2), "size 131071 is too small: .* 128K", id="below a row"),
        pytest.param(request(size_bytes=1 << 63), alus(1), "above 9223372036854775807", id="above 8 EiB"),
        pytest.param(request(block_bytes=520), alus(1), "blocks of 520 bytes .*: take 512 or 4096", id="block size"),
        pytest.param(
            request("stripe", chunk_bytes=48 << 10), alus(2), "chunk 49152 is not a power of two", id="odd chunk"
        ),
        pytest.param(request("stripe", chunk_bytes=0), alus(2), "chunk 0 is not a power of two", id="no chunk"),
        pytest.param(request("stripe", chunk_bytes=-512), alus(2), "chunk -512 is not", id="negative chunk"),
        pytest.param(
            request("stripe", chunk_bytes=512, block_bytes=4096),
            alus(2),
            "from 4096 to 16777216",
            id="chunk below a block",
        ),
        pytest.param(request("stripe", chunk_bytes=32 * MIB), alus(2), "chunk 33554432 is not", id="huge chunk"),
        pytest.param(request("stripe", width=1), alus(2), "width 1 is not 2 to 64", id="narrow"),
        pytest.param(request("stripe", width=65), alus(2), "width 65 is not 2 to 64", id="wide"),
        pytest.param(request("concat", width=0), alus(2), "width 0 is not 1 to 64", id="no member"),
        pytest.param(request("mirror", legs=1), alus(2), "legs 1 is not 2 to 8", id="one leg"),
        pytest.param(request("mirror", legs=9), alus(9), "legs 9 is not 2 to 8", id="nine legs"),
        pytest.param(request("stripe-mirror"), alus(3), "takes 4 alus, there are 3: attach more", id="too few"),
        pytest.param(request("stripe"), [], "takes 2 alus, there are 0", id="none"),
        pytest.param(request("mirror", alus=named(0)), alus(3), "takes 2 alus, not 1: name 2", id="too few named"),
        pytest.param(request("mirror", alus=named(0, 1, 2)), alus(3), "takes 2 alus, not 3", id="too many named"),
        pytest.param(request("mirror", alus=named(0, 0)), alus(3), "/disks/0 is named more than once", id="twice"),
        pytest.param(request("linear", alus=named(7)), alus(3), f"alu {alu_wwn(7)} is not attached", id="unknown alu"),
        pytest.param(request("linear", alus=named(2)), ODD, "/disks/2 is foreign", id="foreign"),
        pytest.param(request("linear", alus=named(3)), ODD, "/disks/3 has sectors of 4096 bytes", id="sectors"),
        pytest.param(request("mirror", max_alus=1), alus(3), "takes 2 alus, and the volume may span 1", id="span"),
        pytest.param(
            request(size_bytes=GIB),
            SMALL,
            "1G are needed, 300 MiB are free on 3 alus: 100 MiB on /disks/0, 100 MiB on /disks/1",
            id="full",
        ),
        pytest.param(
            request(size_bytes=201 * MIB, max_alus=2),
            SMALL,
            "201M are needed, 200 MiB are free on 2 alus",
            id="span full",
        ),
        pytest.param(
            request("concat", 201 * MIB), SMALL, "201M are needed, 200 MiB are free on 2 alus", id="concat full"
        ),
        pytest.param(request(size_bytes=GIB), [], "1G are needed, 0 bytes are free on 0 alus: none", id="no alu"),
        pytest.param(
            request("mirror", 100 * MIB),
            SMALL,
            "101M in one piece are needed on each of 2 alus; the longest free pieces are 100 MiB on /disks/0",
            id="no room for the bitmap",
        ),
        pytest.param(
            request("stripe", alus=named(1, 0)),
            [make_alu(0, GIB), make_alu(1, 200 * MIB, 400 * MIB)],
            "512M in one piece are needed on each of 2 alus; .* 400 MiB on /disks/1, 1 GiB on /disks/0",
            id="named but in pieces",
        ),
        pytest.param(request("mirror"), alus(20, 2 * MIB), "on /disks/7 and 12 more$", id="a long inventory is cut"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(asked: VolumeRequest, inventory: list[AluStatus], message: str) -> None:
    """Prove R11: the error names the value, the limit, and what to do."""
    with pytest.raises(UsageError, match=message):
        build_volume(asked, inventory)


@pytest.mark.parametrize("name", ["", "a b", "-x", ".", "a/b", "a" * 64, "é", "a\n"], ids=repr)
def test_names_that_fit_no_path_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name: 1 to 63 letters"):
        build_volume(VolumeRequest(name=name, size_bytes=GIB, layout="linear"), alus(1))
