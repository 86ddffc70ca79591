"""The initiator's hot path does what the general one does, and leaves to that one what is not its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.iscsi.initiator.cdbs import READ_16, transfer
from backstores.iscsi.initiator.connection import Connection
from backstores.iscsi.pdu import DataIn, ScsiResponse
from tests.support.iscsi_pair import Puppet, ended, read_task, sent, who

said = st.lists(
    st.tuples(
        st.sampled_from(["data", "data and status", "status"]),
        st.integers(1, 4),  # the tag
        st.sampled_from([0, 512, 512, 1024, 4]),  # how much
        st.sampled_from([0, 0, 0, 0, 512]),  # what the offset is off by
        st.sampled_from([0, 0, 0, 0, 1]),  # what DataSN is off by
        st.sampled_from([0, 0, 0, 0, 1]),  # what StatSN is off by
        st.sampled_from([0, 0, 2, 8]),
    ),
    max_size=12,
)


def stream(puppet: Puppet, script: list[tuple[Any, ...]]) -> bytes:
    """Make what a target says; offsets and numbers go on where the last ones ended unless they are off."""
    at: dict[int, int] = {}
    numbers: dict[int, int] = {}
    raw = b""
    for kind, itt, length, offset_off, number_off, stat_off, status in script:
        has_status = kind != "data"
        stat_sn = puppet.stat_sn + stat_off
        puppet.stat_sn += has_status
        if kind == "status":
            raw += puppet.build(ScsiResponse, counts=False, itt=itt, status=status, stat_sn=stat_sn)
            continue
        fields = {
            "itt": itt,
            "offset_bytes": at.get(itt, 0) + offset_off,
            "data_sn": numbers.get(itt, 0) + number_off,
            "status_here": int(has_status),
            "final": 1,
            "status": status if has_status else 0,
            "stat_sn": stat_sn if has_status else 0,
        }
        raw += puppet.build(DataIn, bytes([itt]) * length, counts=False, **fields)
        at[itt] = at.get(itt, 0) + length
        numbers[itt] = numbers.get(itt, 0) + 1
    return raw


@settings(deadline=None, max_examples=200)
@given(said, st.booleans(), st.integers(1, 3000))
def test_both_paths_come_to_the_same(script: list[Any], digested: bool, cut: int) -> None:
    """R12: whatever a target says, and in whatever two pieces it comes."""
    outcomes = []
    for fast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not fast:
                patch.setattr(Connection, "_feed_fast", lambda self, buffer, view, at, end: at)
            puppet = Puppet(who(header_digest=digested), {"HeaderDigest": "CRC32C" if digested else "None"})
            core = puppet.login()
            tasks = [read_task(transfer(READ_16, 0, 4), 2048) for _ in range(3)]
            for task in tasks:
                core.submit(task)
            sent(core)
            raw = stream(puppet, script)
            puppet.receiver.take(raw[:cut])
            puppet.receiver.take(raw[cut:])
            outcomes.append(
                (
                    core.state,
                    core.reason,
                    core.serials.exp_stat_sn,
                    core.serials.max_cmd_sn,
                    [tasks.index(task) for task in ended(core)],
                    [(task.status, task.moved_bytes, bytes(task.into)) for task in tasks],
                )
            )
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("digested", [False, True], ids=["plain", "header digest"])
def test_a_plain_answer_does_not_reach_the_general_path(digested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    puppet = Puppet(who(header_digest=digested), {"HeaderDigest": "CRC32C" if digested else "None"})
    core = puppet.login()
    tasks = [read_task(transfer(READ_16, 0, 1), 512), read_task(b"", 0)]
    for task in tasks:
        core.submit(task)
    monkeypatch.setattr(Connection, "_dispatch", None)
    puppet.say(DataIn, bytes(512), itt=1, status_here=1, final=1)
    puppet.say(ScsiResponse, itt=2)
    assert ended(core) == tasks
