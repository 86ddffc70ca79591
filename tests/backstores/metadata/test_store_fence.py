"""An ALU is taken over by an epoch, and older writers change nothing on it any more (M5)."""

from __future__ import annotations

import asyncio

import pytest

from backstores.errors import TiergateError
from backstores.metadata.inspection import Ownership
from backstores.metadata.layout import MDR_ADDRESSES, label_addresses
from backstores.metadata.mdr import FencedError
from tests.support.metadata import SIZE, SUSID, partition, volume
from tests.support.one_alu import claimed, opened
from tests.support.recording import SECTOR, RecordingStorage, StorageFailed, put


def test_a_writer_of_an_older_epoch_is_refused_on_the_alu_itself() -> None:
    """M5: and nothing is written, though it knows of no other."""
    storage, older = claimed()
    asyncio.run(older.commit((partition(1, 8),), 0))
    newer, _ = opened(storage)
    assert asyncio.run(newer.fence(4)) == ()
    asyncio.run(newer.commit((partition(2, 9),), 4))
    storage.events.clear()
    with pytest.raises(FencedError, match="epoch 4"):
        asyncio.run(older.commit((partition(3, 10),), 3))
    with pytest.raises(FencedError, match="epoch 4"):
        asyncio.run(older.fence(3))
    assert storage.events == []
    assert (newer.epoch, opened(storage)[0].epoch) == (4, 4)


def test_who_was_refused_is_still_refused_after_looking_again() -> None:
    """M5: only a fence makes a writer a later one, not that it has read of another's epoch."""
    storage, older = claimed()
    asyncio.run(older.fence(3))
    newer, _ = opened(storage)
    asyncio.run(newer.fence(4))
    asyncio.run(older.inspect(SUSID))
    assert older.epoch == 4
    with pytest.raises(FencedError, match="epoch 4, this is epoch 3"):
        asyncio.run(older.commit((partition(1, 8),)))
    asyncio.run(newer.commit((partition(1, 8),)))


def test_an_alu_is_written_in_the_epoch_in_which_it_was_met() -> None:
    """Without a fence of one's own: what has to be recorded while no majority can give an epoch."""
    storage, metadata = claimed()
    asyncio.run(metadata.fence(3))
    again, _ = opened(storage)
    asyncio.run(again.commit((partition(1, 8),)))
    assert opened(storage)[0].objects == (partition(1, 8),)


def test_a_fence_finds_what_the_older_writer_committed_last() -> None:
    """M5: what was committed after this one had looked, and before its fence, is not overwritten."""
    storage, older = claimed()
    newer, _ = opened(storage)
    asyncio.run(older.commit((partition(1, 8),)))
    asyncio.run(newer.fence(1))
    assert newer.objects == (partition(1, 8),)
    asyncio.run(newer.commit((*newer.objects, partition(2, 9)), 1))
    assert opened(storage)[0].objects == (partition(1, 8), partition(2, 9))


def test_what_a_failed_commit_left_is_not_believed_when_it_is_looked_at_again() -> None:
    """M3: it is read from a cache, and the flush that failed has told that it may never reach the disk."""
    storage, metadata = claimed()
    storage.fail_after = 3
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit((volume(2, 1),)))
    storage.fail_after = None
    asyncio.run(metadata.inspect(SUSID))
    assert metadata.objects == ()
    asyncio.run(metadata.commit((volume(4, 5),)))
    assert opened(storage)[0].objects == metadata.objects == (volume(4, 5),)


def test_what_a_failed_commit_left_is_not_taken_back_behind_a_later_writer() -> None:
    """M5, M6: that one has gone on from what it found, and where it was there are its own changes by now."""
    storage, metadata = claimed()
    storage.fail_after = 3  # both writes, the flush between them, and not the last one
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit((volume(2, 1),)))
    storage.fail_after = None
    later, _ = opened(storage)
    asyncio.run(later.fence(1))
    for number in (4, 6):
        asyncio.run(later.commit((volume(number, 5),)))
    asyncio.run(metadata.fence(2))
    assert metadata.objects == later.objects
    assert opened(storage)[0].objects == later.objects


def test_a_fence_that_is_there_already_is_not_written_again() -> None:
    storage, metadata = claimed()
    asyncio.run(metadata.fence(2))
    storage.events.clear()
    asyncio.run(metadata.fence(2))
    assert storage.events == []


@pytest.mark.parametrize("address", [*label_addresses(SIZE), *MDR_ADDRESSES])
def test_a_fence_mends_what_there_are_copies_of(address: int) -> None:
    """R1: damage is told once, and the next one finds as many copies as ever."""
    storage, metadata = claimed()
    put(storage.image, address, bytes(SECTOR))
    [finding] = asyncio.run(metadata.fence(0))
    assert str(address) in finding.where
    assert asyncio.run(metadata.fence(0)) == ()
    assert opened(storage)[0].label == metadata.label


def refuse_writes(monkeypatch: pytest.MonkeyPatch, storage: RecordingStorage, *addresses: int) -> None:
    write = storage.write

    async def written(offset: int, data: bytes) -> None:
        if offset in addresses:
            raise StorageFailed("input/output error")
        await write(offset, data)

    monkeypatch.setattr(storage, "write", written)


@pytest.mark.parametrize("address", [*label_addresses(SIZE), *MDR_ADDRESSES])
def test_a_sector_that_can_be_neither_read_nor_written_stops_no_fence(
    address: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: there are other copies, and the ALU can be taken over and changed as ever."""
    storage, metadata = claimed()
    refuse_writes(monkeypatch, storage, address)
    storage.unreadable = {address // SECTOR}
    asyncio.run(metadata.fence(2))
    asyncio.run(metadata.commit((volume(2, 1),)))
    again, ownership = opened(storage)
    assert (ownership, again.objects, again.epoch) == (Ownership.OWNED, metadata.objects, 2)


def test_an_alu_that_could_not_be_taken_over_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """M5: an older writer may be there, that it does not refuse yet; once it is fenced all goes on."""
    storage, metadata = claimed()
    refuse_writes(monkeypatch, storage, *MDR_ADDRESSES)
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.fence(2))
    monkeypatch.undo()
    storage.events.clear()
    asyncio.run(metadata.inspect(SUSID))
    with pytest.raises(TiergateError, match="could not be taken over"):
        asyncio.run(metadata.commit((volume(2, 1),)))
    assert storage.events == []
    asyncio.run(metadata.fence(2))
    asyncio.run(metadata.commit((volume(2, 1),)))
