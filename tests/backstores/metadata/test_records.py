"""The body of an object region: strict to decode, and checked object by object."""

from __future__ import annotations

import msgspec
import pytest

from backstores.errors import CorruptError
from backstores.metadata.findings import Problem
from backstores.metadata.records import check, decode, encode
from backstores.objects import MIB, AnyObject, ConcatObject, Extent
from backstores.wwn import Wwn
from tests.support.metadata import ALU, OTHER_ALU, mirror, name, partition, stripe, volume

DATA = Extent(8 * MIB, 40 * MIB)
TREE: tuple[AnyObject, ...] = (
    volume(2, 3),
    stripe(3, [4, 5]),
    mirror(4, [6, 7]),
    ConcatObject(wwn=name(5), volume=name(2), children=(name(8),), blocks=2048),
    partition(6, 8, bitmap=9),
    partition(7, 10, bitmap=11),
    partition(8, 12),
)


def test_what_is_encoded_is_decoded() -> None:
    """R3."""
    assert decode(encode(TREE)) == TREE
    assert check(TREE, ALU, DATA) == ()


def entry(**changes: object) -> bytes:
    plain = msgspec.to_builtins(partition(6, 8)) | changes
    return msgspec.msgpack.encode({"objects": [plain]})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc0",
        b"\x80",
        encode(TREE) + b"\0",
        encode(TREE)[:-1],
        entry(type="teleport"),
        entry(generation="1"),
        entry(extent=None),
        entry(wwn=b"\xff"),
        b"\x81\xa7objects\x91\x81\xa4type\xa2\xff\xfe",
        b"\x81\xa5other\x90",
        b"\x82\xa7objects\x90\xa5other\xc0",
        b"\x81\xa1z" + b"\x91" * 100_000 + b"\xc0",
        b"\x81\xa7objects\xdd\xff\xff\xff\xff",
    ],
    ids=[
        "nothing",
        "nil",
        "no-entry",
        "left-over",
        "cut",
        "unknown-type",
        "wrong-type",
        "no-extent",
        "bytes-for-text",
        "bad-utf-8",
        "wrong-entry",
        "unknown-entry",
        "nested-deeply",
        "four-billion-objects",
    ],
)
def test_what_does_not_decode_is_corrupt(raw: bytes) -> None:
    """S3: no other exception escapes, whatever the bytes."""
    with pytest.raises(CorruptError):
        decode(raw)


def changed(item: AnyObject, **changes: object) -> AnyObject:
    return msgspec.structs.replace(item, **changes)


@pytest.mark.parametrize(
    ("objects", "problem", "wrong"),
    [
        ([partition(6, 8), partition(6, 9)], Problem.DUPLICATE, [6]),
        ([partition(6, 8, 3), partition(7, 10)], Problem.OVERLAP, [7, 6]),
        ([partition(6, 8, 9), partition(7, 9), partition(8, 11)], Problem.OVERLAP, [7, 6, 8, 6]),
        ([partition(6, 8, bitmap=8)], Problem.OVERLAP, [6, 6]),
        ([partition(6, 7)], Problem.OUTSIDE, [6]),
        ([partition(6, 47, 2)], Problem.OUTSIDE, [6]),
        ([partition(6, 8, bitmap=48)], Problem.OUTSIDE, [6]),
        ([partition(6, 8, 0)], Problem.INVALID, [6]),
        ([partition(6, 9, -1)], Problem.INVALID, [6]),
        ([changed(partition(6, 8), extent=Extent(8 * MIB + 512, MIB))], Problem.INVALID, [6]),
        ([partition(6, 8, alu=OTHER_ALU)], Problem.FOREIGN, [6]),
        ([changed(partition(6, 8), generation=0)], Problem.INVALID, [6]),
        ([changed(partition(6, 8), generation=1 << 63)], Problem.INVALID, [6]),
        ([changed(stripe(6, [7]), chunk_blocks=0)], Problem.INVALID, [6]),
        ([stripe(6, [])], Problem.INVALID, [6]),
        ([changed(mirror(6, [7]), region_blocks=0)], Problem.INVALID, [6]),
        ([changed(mirror(6, [7]), fail_sequence=-1)], Problem.INVALID, [6]),
        ([changed(volume(6, 7), root=Wwn("none"))], Problem.INVALID, [6]),
        ([changed(volume(6, 7), block_bytes=513)], Problem.INVALID, [6]),
        ([changed(volume(6, 7), name="")], Problem.INVALID, [6]),
        ([changed(volume(6, 7), name="a\x1b[2J")], Problem.INVALID, [6]),
        ([changed(volume(6, 7), blocks=-5)], Problem.INVALID, [6]),
        ([changed(volume(6, 7), layout="\x1b[2J")], Problem.INVALID, [6]),
        ([changed(volume(6, 7), created="x" * 64)], Problem.INVALID, [6]),
    ],
    ids=[
        "name-twice",
        "overlap",
        "overlap-of-three",
        "bitmap-on-data",
        "before-the-data-area",
        "behind-the-data-area",
        "bitmap-behind-the-data-area",
        "empty-extent",
        "negative-extent",
        "misaligned",
        "of-another-alu",
        "generation-0",
        "generation-2^63",
        "chunk-0",
        "no-children",
        "region-0",
        "sequence-below-0",
        "no-name",
        "block-size",
        "volume-without-name",
        "escape-sequence-for-a-name",
        "size-below-0",
        "escape-sequence-for-a-layout",
        "long-date",
    ],
)
def test_what_no_writer_would_store_is_named(objects: list[AnyObject], problem: Problem, wrong: list[int]) -> None:
    findings = check(objects, ALU, DATA)
    assert [(f.problem, f.wwn) for f in findings] == [(problem, name(number)) for number in wrong]


def test_a_message_does_not_repeat_what_is_no_name() -> None:
    """S3: what a disk holds in place of a name never gets onto a terminal."""
    findings = check([changed(partition(6, 8), wwn=Wwn("\x1b[31m" + "x" * 26))], ALU, DATA)
    assert findings
    assert all("\x1b" not in str(finding) for finding in findings)
