"""The metadata of one ALU, end to end over a disk in memory."""

from __future__ import annotations

import asyncio

import pytest

from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.metadata.inspection import Ownership
from backstores.metadata.label import build, new_label, renewed
from backstores.metadata.layout import LABEL_ADDRESSES, REGION_ADDRESSES
from backstores.metadata.store import AluMetadata
from backstores.objects import MIB, Extent
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, clock, partition, volume
from tests.support.recording import SECTOR, RecordingStorage, StorageFailed, put


def opened(storage: RecordingStorage, susid: str = SUSID) -> tuple[AluMetadata, Ownership]:
    async def go() -> tuple[AluMetadata, Ownership]:
        metadata = AluMetadata(storage, storage.size_bytes, clock())
        return metadata, (await metadata.inspect(susid)).ownership

    return asyncio.run(go())


def claimed(size: int = SIZE) -> tuple[RecordingStorage, AluMetadata]:
    storage = RecordingStorage(size)
    metadata = AluMetadata(storage, size, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    return storage, metadata


def test_objects_survive_a_restart() -> None:
    """R3: what was committed is found again from the ALU alone."""
    storage, metadata = claimed()
    objects = (partition(1, 8), volume(2, 1))
    asyncio.run(metadata.commit(objects))
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert again.objects == objects
    assert again.generation == metadata.generation
    assert again.label == metadata.label


def test_free_room_is_what_partitions_leave() -> None:
    """R8: free extents of an owned ALU."""
    _, metadata = claimed()
    assert metadata.free == (Extent(8 * MIB, SIZE - 9 * MIB),)
    asyncio.run(metadata.commit((partition(1, 9, units=2),)))
    assert metadata.free == (Extent(8 * MIB, MIB), Extent(11 * MIB, SIZE - 12 * MIB))


@pytest.mark.parametrize("boot", [b"", b"\xebboot"], ids=["blank", "boot-sector"])
def test_the_first_4_kib_are_never_written(boot: bytes) -> None:
    storage = RecordingStorage(SIZE)
    put(storage.image, 0, boot.ljust(SECTOR, b"\0"))
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    asyncio.run(metadata.commit((partition(1, 8),)))
    assert all(event.offset is None or event.offset >= 4096 for event in storage.events)


def test_inspect_writes_nothing() -> None:
    """R2: attaching an ALU changes nothing on it."""
    storage = RecordingStorage(SIZE)
    assert opened(storage)[1] is Ownership.BLANK
    storage, _ = claimed()
    storage.events.clear()
    opened(storage)
    opened(storage, "another appliance")
    assert not storage.events


@pytest.mark.parametrize("susid", ["another", SUSID + "0"])
def test_alu_of_another_appliance_is_foreign(susid: str) -> None:
    """R2: without a valid SUSID the ALU is not used."""
    storage, _ = claimed()
    metadata, ownership = opened(storage, susid)
    assert ownership is Ownership.FOREIGN
    with pytest.raises(CorruptError):
        asyncio.run(metadata.commit(()))


def test_claim_of_a_foreign_alu_makes_it_ours_and_empty() -> None:
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    taken = AluMetadata(storage, SIZE, clock())
    asyncio.run(taken.format("another", OTHER_ALU))
    again, ownership = opened(storage, "another")
    assert ownership is Ownership.OWNED
    assert (again.label.alu, again.objects) == (OTHER_ALU, ())
    assert opened(storage)[1] is Ownership.FOREIGN


@pytest.mark.parametrize("copy", [0, 1], ids=["label-a", "label-b"])
@pytest.mark.parametrize("unreadable", [False, True], ids=["zeroed", "unreadable"])
def test_one_label_copy_is_enough(copy: int, unreadable: bool) -> None:
    """R1: the label is duplicated."""
    storage, _ = claimed()
    if unreadable:
        storage.unreadable.add(LABEL_ADDRESSES[copy] // SECTOR)
    else:
        put(storage.image, LABEL_ADDRESSES[copy], bytes(SECTOR))
    assert opened(storage)[1] is Ownership.OWNED


def test_one_region_copy_is_enough_and_the_other_is_written_next() -> None:
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    asyncio.run(metadata.commit((partition(1, 8), partition(2, 9))))
    assert metadata.generation == 4  # two of the format; the live copy is B
    storage.unreadable.add(REGION_ADDRESSES[0] // SECTOR)
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert len(again.objects) == 2
    storage.unreadable.clear()
    storage.events.clear()
    asyncio.run(again.commit(()))
    assert {event.offset for event in storage.events} == {REGION_ADDRESSES[0], REGION_ADDRESSES[0] + 4096, None}


@pytest.mark.parametrize("steps", [0, 1, 2, 3], ids=["body", "first-flush", "header", "last-flush"])
def test_a_failed_commit_leaves_the_old_objects_and_the_next_one_works(steps: int) -> None:
    storage, metadata = claimed()
    old = (partition(1, 8),)
    asyncio.run(metadata.commit(old))
    storage.fail_after = steps
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit((partition(2, 9),)))
    assert metadata.objects == old
    storage.fail_after = None
    new = (*old, partition(3, 10))
    asyncio.run(metadata.commit(new))
    assert metadata.objects == new
    assert opened(storage)[0].objects == new


class SlowStorage(RecordingStorage):
    """A disk that lets others run before it answers."""

    async def write(self, offset: int, data: bytes) -> None:
        await asyncio.sleep(0)
        await super().write(offset, data)

    async def flush(self) -> None:
        await asyncio.sleep(0)
        await super().flush()


def test_commits_at_once_come_one_after_the_other() -> None:
    storage = SlowStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())

    async def go() -> None:
        await metadata.format(SUSID, ALU)
        await asyncio.gather(*(metadata.commit((partition(number, 8),)) for number in range(1, 6)))

    asyncio.run(go())
    assert metadata.objects == (partition(5, 8),)
    assert metadata.generation == 7
    assert opened(storage)[0].objects == metadata.objects


def test_a_cancelled_commit_leaves_the_old_objects() -> None:
    """What a cancelled task had begun is begun again by the next commit."""
    storage = SlowStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())

    async def go() -> None:
        await metadata.format(SUSID, ALU)
        task = asyncio.ensure_future(metadata.commit((partition(1, 8),)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert metadata.objects == ()
        await metadata.commit((partition(2, 9),))

    asyncio.run(go())
    assert opened(storage)[0].objects == metadata.objects == (partition(2, 9),)


def test_an_alu_that_has_shrunk_is_damaged() -> None:
    storage, _ = claimed(32 * MIB)
    storage.size_bytes -= 4096
    assert opened(storage)[1] is Ownership.DAMAGED


def test_an_alu_that_has_grown_keeps_its_data_area() -> None:
    storage, metadata = claimed()
    storage.size_bytes += 64 * MIB
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert again.label.data == metadata.label.data


@pytest.mark.parametrize("size", [0, 4096, 16 * MIB - 1, 1 << 63], ids=["empty", "page", "just-below", "past-8-eib"])
def test_sizes_out_of_bounds_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=str(size)):
        AluMetadata(RecordingStorage(size), size)


def test_both_region_copies_gone_is_damaged_and_nothing_can_be_committed() -> None:
    storage, _ = claimed()
    for address in REGION_ADDRESSES:
        put(storage.image, address, b"\xff" * SECTOR)
    metadata, ownership = opened(storage)
    assert ownership is Ownership.DAMAGED
    with pytest.raises(TiergateError):
        asyncio.run(metadata.commit(()))


def test_labels_gone_but_a_region_there_is_damaged_not_blank() -> None:
    """R2: a claim without force must not take it for blank."""
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    for address in LABEL_ADDRESSES:
        put(storage.image, address, bytes(SECTOR))
    assert opened(storage)[1] is Ownership.DAMAGED


def test_time_stamps_never_run_backwards() -> None:
    """M2: a clock that jumps back changes nothing in the order."""
    storage, metadata = claimed()
    earlier = AluMetadata(storage, SIZE, lambda: 5)
    asyncio.run(earlier.inspect(SUSID))
    asyncio.run(earlier.commit((partition(1, 8),)))
    asyncio.run(earlier.format(SUSID, ALU))
    assert earlier.label.time_ns == metadata.label.time_ns + 1


def test_claim_after_contradicting_labels_wins_over_both() -> None:
    storage, metadata = claimed()
    other = renewed(new_label("another", OTHER_ALU, SIZE), None, 7)
    put(storage.image, LABEL_ADDRESSES[1], build(other, LABEL_ADDRESSES[1]))
    assert opened(storage)[1] is Ownership.DAMAGED
    asyncio.run(metadata.format(SUSID, ALU))
    assert metadata.label.generation == 2
    assert opened(storage)[1] is Ownership.OWNED
