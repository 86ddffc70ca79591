"""Records of legacy ALUs: read strictly, and matched with what stands at a path (R5)."""

from __future__ import annotations

import msgspec
import pytest

from backstores.errors import CorruptError, UsageError
from backstores.metadata.legacy import Mark, Record, decode, encode, recognize
from backstores.objects import AnyObject, Extent, PartitionObject, VolumeObject
from tests.support.volumes import alu_wwn, object_wwn

SIZE = 9 * 512
HEAD = VolumeObject(
    wwn=object_wwn(1),
    name="old",
    root=object_wwn(2),
    layout="legacy",
    block_bytes=512,
    blocks=9,
    created="2026-11-23T00:00:00Z",
)
PART = PartitionObject(wwn=object_wwn(2), volume=HEAD.wwn, alu=alu_wwn(1), extent=Extent(0, SIZE))
SERIAL, INODE = Mark(SIZE, "serial number 7", anywhere=True), Mark(SIZE, "inode 12")
DISK = Record(alu_wwn(1), "/dev/sdb", SERIAL, (HEAD, PART))
FILE = Record(alu_wwn(1), "/old.img", INODE, (HEAD, PART))
UNUSED = msgspec.structs.replace(FILE, objects=())


@pytest.mark.parametrize("record", [DISK, FILE, UNUSED], ids=["disk", "file", "unused"])
def test_what_was_kept_is_read_back(record: Record) -> None:
    assert decode(encode(record)) == record


def replaced(item: AnyObject, **changes: object) -> AnyObject:
    return msgspec.structs.replace(item, **changes)


OTHER = replaced(PART, wwn=object_wwn(3))
NONSENSE: dict[str, tuple[AnyObject, ...]] = {
    "no-volume": (PART,),
    "no-partition": (HEAD,),
    "not-from-the-first-byte": (HEAD, replaced(PART, extent=Extent(512, SIZE - 512))),
    "past-the-end": (HEAD, replaced(PART, extent=Extent(0, SIZE + 512))),
    "on-another-alu": (HEAD, replaced(PART, alu=alu_wwn(2))),
    "a-smaller-volume": (replaced(HEAD, blocks=8), PART),
    "blocks-of-another-size": (replaced(HEAD, block_bytes=4096, blocks=1), PART),
    "more-than-a-volume": (HEAD, PART, OTHER),
}


@pytest.mark.parametrize("objects", NONSENSE.values(), ids=NONSENSE)
def test_a_record_that_can_not_be_meant_is_refused(objects: tuple[AnyObject, ...]) -> None:
    """S3: what was read is checked before it is used."""
    with pytest.raises(CorruptError):
        decode(encode(msgspec.structs.replace(DISK, objects=objects)))


def test_a_damaged_record_is_read_or_refused_and_never_an_error_of_ours() -> None:
    """S3: cut anywhere, or with any byte flipped, it is a record or CorruptError."""
    raw = encode(DISK)
    for at in range(len(raw)):
        with pytest.raises(CorruptError):
            decode(raw[:at])
        for flipped in (raw[at] ^ 0x01, raw[at] ^ 0x80):
            try:
                decode(raw[:at] + bytes([flipped]) + raw[at + 1 :])
            except CorruptError:
                continue


def test_a_disk_is_recognized_under_another_path() -> None:
    """R5: the kernel names disks as it finds them."""
    assert recognize([DISK], "/dev/sdc", SERIAL) == msgspec.structs.replace(DISK, path="/dev/sdc")


def test_a_file_is_recognized_where_it_was() -> None:
    assert recognize([FILE], "/old.img", INODE) == FILE
    assert recognize([FILE], "/elsewhere.img", INODE) is None


@pytest.mark.parametrize("mark", [Mark(SIZE), Mark(SIZE, "serial number 8", anywhere=True)], ids=["none", "another"])
def test_another_disk_at_the_path_is_refused_unless_forced(mark: Mark) -> None:
    """R5: hosts must not find another's data under their volume's name."""
    with pytest.raises(UsageError, match="with volume old, was serial number 7: bring that back, or") as refused:
        recognize([DISK], "/dev/sdb", mark)
    assert "\n" not in str(refused.value)
    assert recognize([DISK], "/dev/sdb", mark, force=True) == msgspec.structs.replace(DISK, mark=mark)


SMALLER = {"disk": (DISK, Mark(512, SERIAL.text, anywhere=True)), "file": (FILE, Mark(512, INODE.text))}


@pytest.mark.parametrize("force", [False, True], ids=["asked", "forced"])
@pytest.mark.parametrize(("record", "mark"), SMALLER.values(), ids=SMALLER)
def test_what_has_become_smaller_is_refused_whatever_is_said(record: Record, mark: Mark, force: bool) -> None:
    """R5: the volume could not be all of it."""
    with pytest.raises(UsageError, match=f"{record.path} has 512 bytes; .* had {SIZE}, .*: bring that back"):
        recognize([record], record.path, mark, force)


@pytest.mark.parametrize("record", [DISK, FILE], ids=["disk", "file"])
def test_a_volume_grows_with_its_alu(record: Record) -> None:
    """R5: it is all of it, by definition; a host sees the new size as of any volume that has grown."""
    found = recognize([record], record.path, msgspec.structs.replace(record.mark, size_bytes=20 * 512))
    assert found is not None
    assert decode(encode(found)) == found
    assert found.volume is not None
    assert (found.volume.blocks, found.volume.generation) == (20, 2)


def test_blocks_that_would_not_be_whole_are_refused() -> None:
    """R5: a disk image in blocks of 4096 bytes that a sector was appended to."""
    large = (
        replaced(HEAD, block_bytes=4096, blocks=2),
        replaced(PART, extent=Extent(0, 8192)),
    )
    record = Record(alu_wwn(1), "/old.img", Mark(8192, "inode 12"), large)
    assert decode(encode(record)) == record
    with pytest.raises(UsageError, match=r"/old\.img has 8704 bytes; .* had 8192, and blocks of 4096: bring that back"):
        recognize([record], "/old.img", Mark(8704, "inode 12"))


def test_where_nothing_was_served_anything_may_stand() -> None:
    assert recognize([UNUSED], "/old.img", Mark(512, "inode 13")) is None
    assert recognize([], "/old.img", INODE) is None


def test_what_tells_nothing_of_itself_is_known_by_path_and_size() -> None:
    record = msgspec.structs.replace(FILE, mark=Mark(SIZE))
    assert recognize([record], "/old.img", Mark(SIZE)) == record
    assert recognize([record], "/elsewhere.img", Mark(SIZE)) is None
