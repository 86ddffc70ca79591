"""What is made of the end of a request: runs of blocks, which error met which block, which leaves have failed."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from backstores.block import BlockError, Busy, NoSpace, Op, ReadFailed, Request, Run, WriteFailed
from backstores.engine.executor import LeafFailed, StageFailed
from backstores.volume import loss


def joined(runs: Sequence[Run], base: int) -> list[Run]:
    """Put STATUS answers of several leaves together: in order, neighbours that are alike as one."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].mapped == run.mapped and joined[-1].lba + joined[-1].blocks == base + run.lba:
            joined[-1] = joined[-1]._replace(blocks=joined[-1].blocks + run.blocks)
        else:
            joined.append(Run(base + run.lba, run.blocks, run.mapped))
    return joined


def block_error(request: Request, failed: StageFailed) -> BlockError:
    """Say to the host what failed, and at which of its blocks."""
    first: LeafFailed = min(failed.failures, key=lambda failure: failure.at)
    lba = request.lba + first.at
    if any(failure.errno in loss.FULL for failure in failed.failures):
        return NoSpace(str(failed), lba)
    if request.op in (Op.READ, Op.STATUS):
        return ReadFailed(str(failed), lba)
    return WriteFailed(str(failed), lba)


def final(busy: Busy) -> BlockError:
    """Say what became of a change that nobody may ask for again once a part of it is done.

    Sent again, a command that compares before it writes would meet what it has written itself.
    """
    return WriteFailed(f"it was written in part: {busy}", busy.lba) if busy.begun else busy


def failures(failed: StageFailed) -> list[loss.Failure]:
    """Say what failed in the words in which losses are decided."""
    return [loss.Failure(failure.leaf, failure.errno, failure.op is Op.FLUSH) for failure in failed.failures]


def out_of_reach(failed: StageFailed) -> bool:
    """Whether nothing is wrong but that no way leads to some legs: whoever holds the volume may know another."""
    return all(failure.errno == errno.ENOTCONN for failure in failed.failures)
