"""Data there and back: every way that a target may want it, in pieces of any size (R12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.device import MemoryDevice
from backstores.iscsi import negotiate
from backstores.iscsi.initiator import offers
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.connection import DIRECT_BYTES
from backstores.iscsi.negotiate import KEYS, Key
from tests.support.engines import noise
from tests.support.iscsi_pair import Pair, read_task, who, write_task
from tests.support.iscsi_twins import MemoryAccess

BLOCK = 512
BLOCKS = 8192


def seeded(seed: int) -> Callable[[int], int]:
    """Cut what arrives into pieces, differently for each seed."""
    state = [seed]

    def pieces(count: int) -> int:
        state[0] = (state[0] * 1103515245 + 12345) % (1 << 31)
        return state[0] % (3000 if state[0] % 3 else 60000)

    return pieces


def offering(**changes: str) -> dict[str, Key]:
    """Give the table of keys with some of our own values changed."""

    def value(text: str) -> Any:
        return {"Yes": True, "No": False}.get(text, int(text) if text.isdigit() else text)

    return {**KEYS, **{name: replace(KEYS[name], ours=value(text)) for name, text in changes.items()}}


@settings(deadline=None, max_examples=60)
@given(
    blocks=st.integers(1, 3000),
    lba=st.integers(0, 4000),
    header_digest=st.booleans(),
    data_digest=st.booleans(),
    immediate=st.sampled_from(["Yes", "No"]),
    initial_r2t=st.sampled_from(["Yes", "No"]),
    first_burst=st.sampled_from(["512", "4096", "65536", "262144"]),
    max_burst=st.sampled_from(["262144", "524288", "1048576"]),
    fast=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_what_is_written_is_read_back(
    blocks: int,
    lba: int,
    header_digest: bool,
    data_digest: bool,
    immediate: str,
    initial_r2t: str,
    first_burst: str,
    max_burst: str,
    fast: bool,
    seed: int,
) -> None:
    """R12: immediate, unsolicited or asked for by R2T, with digests or without: the target has every byte, and we."""
    device = MemoryDevice(BLOCKS, BLOCK)
    device.immediate = fast
    changes = {
        "ImmediateData": immediate,
        "InitialR2T": initial_r2t,
        "FirstBurstLength": first_burst,
        "MaxBurstLength": max_burst,
    }
    pair = Pair(MemoryAccess(device), who(header_digest=header_digest, data_digest=data_digest), pieces=seeded(seed))
    table = offering(**changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offers, "KEYS", table)
        patch.setattr(negotiate, "KEYS", table)
        core = pair.login()
    assert core.outbox.parameters.immediate_data == (immediate == "Yes")
    data = noise(blocks * BLOCK, seed)
    assert pair.run(write_task(transfer(WRITE_16, lba, blocks), data)).status == 0
    assert bytes(device.content[lba * BLOCK :][: len(data)]) == data
    task = pair.run(read_task(transfer(READ_16, lba, blocks), len(data)))
    assert (task.status, task.moved_bytes) == (0, len(data))
    assert bytes(task.into) == data


@pytest.mark.parametrize("digested", [False, True], ids=["plain", "header digest"])
def test_the_rest_of_a_long_data_in_is_received_where_it_belongs(digested: bool) -> None:
    """What has not arrived of 128 KiB when their header has goes straight into the caller's buffer."""
    pair = Pair(MemoryAccess(MemoryDevice(BLOCKS)), who(header_digest=digested), pieces=lambda count: 1000)
    pair.access.device.write_now(0, 256, memoryview(noise(131072)))
    pair.login()
    task = pair.run(read_task(transfer(READ_16, 0, 256), 131072))
    assert bytes(task.into) == noise(131072)
    assert pair.receiver.straight > 131072 - 2000 - DIRECT_BYTES


def test_many_commands_share_the_connection() -> None:
    """More than the target's window: what does not fit waits, and all of them end."""
    pair = Pair(MemoryAccess(MemoryDevice(BLOCKS)))
    core = pair.login()
    pair.access.device.write_now(0, 1000, memoryview(noise(512000)))
    tasks = [read_task(transfer(READ_16, number, 1), BLOCK) for number in range(1000)]
    for task in tasks:
        core.submit(task)
    assert len(core.tasks.running) == 128
    pair.pump()
    assert [task.status for task in tasks] == [0] * 1000
    assert b"".join(bytes(task.into) for task in tasks) == noise(512000)


def test_a_short_answer_is_told_as_such() -> None:
    """REPORT LUNS with more room than there is to say."""
    pair = Pair()
    pair.login()
    task = pair.run(read_task(b"\xa0" + bytes(11), 4096))
    assert (task.status, task.moved_bytes) == (0, 16)


def test_sense_data_come_with_the_status() -> None:
    pair = Pair(MemoryAccess(MemoryDevice(16)))
    pair.login()
    task = pair.run(read_task(transfer(READ_16, 16, 1), BLOCK))
    assert task.status == 2
    assert task.sense[2] == 5
    assert task.sense[12] == 0x21
