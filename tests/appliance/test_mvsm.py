"""The master: in its epoch alone, one change after the other, once (R9, M5)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from appliance.control.orders import Admit, BeMaster, Change, Collect, Commit, FailLegs, MasterOrder, TakeUp
from appliance.control.reports import Committed, ImagePart, Taken
from appliance.control.values import PART_VOLUMES, VolumeImage
from appliance.decisions import Carried, Do, Failed, RecordLegs, Refuse, Reply
from appliance.messages import GsState, GsStatus
from appliance.mvsm import Mvsm, MvsmState, failed
from appliance.simulation.plant import Builder, alu_wwn
from backstores.objects import LegState, MirrorObject

GS = GsStatus(state=GsState.READY)
TREE = Builder().volume("mirror", [alu_wwn(0), alu_wwn(1)])
VOLUME = TREE[0].wwn
[MIRROR] = [obj for obj in TREE if isinstance(obj, MirrorObject)]
CREATE = Commit(epoch=5, change=Change.CREATE, volume=VOLUME, objects=TREE)


def carried(mvsm: Mvsm, order: MasterOrder, outcome: Carried | Failed) -> Reply | Refuse:
    """Have an order carried out, which is to be taken."""
    assert isinstance(mvsm.decide(order, mvsm.epoch), Do)
    return mvsm.close(order, outcome, mvsm.epoch)


def active(*trees: VolumeImage, epoch: int = 5) -> Mvsm:
    """Give a master at work."""
    mvsm = Mvsm()
    carried(mvsm, BeMaster(epoch=epoch), Carried(1))
    carried(mvsm, TakeUp(epoch=epoch), Carried(2, Taken(epoch=epoch, gs=GS), trees))
    assert mvsm.state is MvsmState.ACTIVE
    return mvsm


def collected(mvsm: Mvsm, cursor: int = 0) -> ImagePart:
    """Collect a part."""
    decision = mvsm.decide(Collect(epoch=mvsm.epoch, cursor=cursor), mvsm.epoch)
    assert isinstance(decision, Reply)
    assert isinstance(decision.result, ImagePart)
    return decision.result


ORDERS = {
    "admit": Admit(epoch=5, alus=()),
    "take up": TakeUp(epoch=5),
    "collect": Collect(epoch=5, cursor=0),
    "commit": CREATE,
    "fail legs": FailLegs(epoch=5, volume=VOLUME, legs=(MIRROR.legs[0].child,)),
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_dormant_one_does_nothing(name: str) -> None:
    """R9: all but one are dormant."""
    decision = Mvsm().decide(ORDERS[name], 0)
    assert isinstance(decision, Refuse)
    assert "dormant" in decision.reason


@pytest.mark.parametrize("name", ORDERS)
def test_an_epoch_that_is_past_is_refused_with_the_one_that_was_seen(name: str) -> None:
    """M5."""
    decision = active(epoch=7).decide(ORDERS[name], 7)
    assert isinstance(decision, Refuse)
    assert decision.epoch == 7


def test_the_epoch_is_the_one_that_the_gs_set_takes() -> None:
    """M5: it is no lower than the VCM says, and above all that the ALUs have seen."""
    mvsm = Mvsm()
    carried(mvsm, BeMaster(epoch=3), Carried(1))
    carried(mvsm, TakeUp(epoch=3), Carried(2, Taken(epoch=9, gs=GS), ()))
    assert mvsm.master_epoch == 9


def test_one_that_slept_is_told_off() -> None:
    """R9: another follows a higher epoch; what was under way does not count."""
    mvsm = active()
    assert isinstance(mvsm.decide(CREATE, 5), Do)
    mvsm.replaced(6)
    answer = mvsm.close(CREATE, Carried(3, Committed(volume=VolumeImage(TREE))), 6)
    assert isinstance(answer, Refuse)
    assert answer.epoch == 6
    assert mvsm.master_epoch == 0


def test_one_that_an_alu_refuses_is_no_master_any_more() -> None:
    """M5."""
    mvsm = active()
    answer = carried(mvsm, CREATE, Failed(3, "fenced", fenced_by=8))
    assert isinstance(answer, Refuse)
    assert answer.epoch == 8
    assert mvsm.state is MvsmState.DORMANT


def test_what_was_done_already_is_answered_and_not_done_again() -> None:
    """C2: a VCM or an MVSP died before it could say so."""
    decision = active(VolumeImage(TREE)).decide(CREATE, 5)
    assert decision == Reply(Committed(volume=VolumeImage(TREE)))


@pytest.mark.parametrize("change", [Change.CREATE, Change.REPLACE])
def test_a_late_commit_does_not_undo_a_later_one(change: Change) -> None:
    """M2: it was asked for again long after it was done, by a VCM that could not know."""
    failed_since, _ = failed(TREE, (MIRROR.legs[0].child,))
    late = Commit(epoch=5, change=change, volume=VOLUME, objects=TREE)
    assert active(VolumeImage(failed_since)).decide(late, 5) == Reply(Committed(volume=VolumeImage(failed_since)))


def test_a_newer_tree_is_committed() -> None:
    newer, _ = failed(TREE, (MIRROR.legs[0].child,))
    order = Commit(epoch=5, change=Change.REPLACE, volume=VOLUME, objects=newer)
    assert isinstance(active(VolumeImage(TREE)).decide(order, 5), Do)


def test_a_deletion_is_done_though_the_volume_was_not_seen() -> None:
    """Its ALUs may have been away when the image was collected."""
    mvsm = active()
    order = Commit(epoch=5, change=Change.DELETE, volume=VOLUME, objects=TREE)
    assert isinstance(mvsm.decide(order, 5), Do)
    mvsm.close(order, Carried(3, Committed()), 5)
    assert mvsm.decide(order, 5) == Reply(Committed())
    assert collected(mvsm).gone == (VOLUME,)
    again = mvsm.decide(CREATE, 5)
    assert isinstance(again, Refuse)
    assert "was deleted" in again.reason


def test_what_an_image_lacks_is_not_taken_for_deleted() -> None:
    mvsm = active(VolumeImage(TREE))
    carried(mvsm, Admit(epoch=5, alus=()), Carried(3, None, ()))
    assert collected(mvsm).volumes == (VolumeImage(TREE),)
    assert collected(mvsm).gone == ()


def test_the_image_comes_in_parts_and_then_what_has_changed() -> None:
    """R10: no message grows with the system."""
    builder = Builder()
    images = [VolumeImage(builder.volume("linear", [alu_wwn(0)])) for _ in range(2 * PART_VOLUMES + 1)]
    mvsm = active(*images)
    parts = [collected(mvsm)]
    while parts[-1].more:
        parts.append(collected(mvsm, parts[-1].cursor))
    assert [len(part.volumes) for part in parts] == [PART_VOLUMES, PART_VOLUMES, 1]
    assert all(first.cursor < second.cursor for first, second in pairwise(parts))
    assert {image for part in parts for image in part.volumes} == set(images)
    mvsm.decide(CREATE, 5)
    mvsm.close(CREATE, Carried(3, Committed(volume=VolumeImage(TREE))), 5)
    assert collected(mvsm, parts[-1].cursor).volumes == (VolumeImage(TREE),)


def test_a_leg_that_failed_is_recorded_in_a_higher_fail_sequence() -> None:
    """D3, R28: the MVSP makes the new tree."""
    leg = MIRROR.legs[0].child
    decision = active(VolumeImage(TREE)).decide(FailLegs(epoch=5, volume=VOLUME, legs=(leg,)), 5)
    assert isinstance(decision, Do)
    assert isinstance(decision.action, RecordLegs)
    [changed] = decision.action.changed
    assert isinstance(changed, MirrorObject)
    assert changed.fail_sequence == MIRROR.fail_sequence + 1
    assert [one.state for one in changed.legs] == [LegState.FAILED, LegState.IN_SYNC]
    assert changed in decision.action.objects


def test_one_that_failed_before_is_known() -> None:
    objects, _ = failed(TREE, (MIRROR.legs[0].child,))
    order = FailLegs(epoch=5, volume=VOLUME, legs=(MIRROR.legs[0].child,))
    assert active(VolumeImage(objects)).decide(order, 5) == Reply(Committed(volume=VolumeImage(objects)))


def test_the_last_leg_is_not_given_up() -> None:
    """D3: who lost the one leg and who lost the other can't both be right."""
    objects, _ = failed(TREE, (MIRROR.legs[0].child,))
    order = FailLegs(epoch=5, volume=VOLUME, legs=(MIRROR.legs[1].child,))
    decision = active(VolumeImage(objects)).decide(order, 5)
    assert isinstance(decision, Refuse)
    assert "no other leg in sync" in decision.reason
