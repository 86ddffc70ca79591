"""The GS set as people see it: who votes, and the way out where too few do (R4)."""

from __future__ import annotations

import msgspec
import pytest

from appliance.messages import GsMember, GsState, GsStatus
from appliance.mic.views import GsMemberView
from backstores.errors import TiergateError, UsageError
from backstores.wwn import new_device_wwn
from tests.appliance.mic.conftest import Site


@pytest.fixture
def crippled(furnished: Site) -> Site:
    """An appliance of which one member is there and two are not; of one of these only its path is known."""
    known = furnished.sp.alus()[0]
    assert known.wwn is not None
    furnished.sp.attached[known.path] = msgspec.structs.replace(furnished.sp.attached[known.path], gs_member=True)
    lost = new_device_wwn()
    furnished.sp.gs = GsStatus(
        state=GsState.READ_ONLY,
        epoch=7,
        generation=30,
        members=(
            GsMember(known.wwn, known.path),
            GsMember(new_device_wwn(), "/gone/b.img", "not attached"),
            GsMember(lost, "", "damaged"),
        ),
        detail="the appliance is read only",
    )
    return furnished


def test_the_state_names_members_as_people_call_them(crippled: Site) -> None:
    """R4: an ALU by its name, one that is not attached by the path where it was seen last."""
    status = crippled.do("/gs", "status")
    assert (status.state, status.epoch, status.generation) == ("read only", 7, 30)
    assert status.members[:2] == (GsMemberView("a0"), GsMemberView("/gone/b.img", "not attached"))
    assert status.members[2].trouble == "damaged"
    assert status.detail == "the appliance is read only"
    assert [alu.gs for alu in crippled.do("/alus", "list")] == ["member", "", "", ""]
    (sp,) = crippled.do("/sps", "status")
    assert sp.gs == "read only"
    gs = crippled.do("/gs", "ls")
    assert (gs.summary, gs.healthy) == ("read only", False)


def test_forming_the_set_anew_must_be_meant(crippled: Site) -> None:
    """R4, R34: the refusal names who would be given up."""
    with pytest.raises(UsageError, match=r"without /gone/b\.img, .*force=yes"):
        crippled.do("/gs", "reform")
    assert "reform_global_set" not in crippled.sp.calls
    crippled.do("/gs", "reform", force=True)
    assert crippled.sp.calls[-1] == "reform_global_set"
    assert crippled.do("/gs", "status").state == "ready"


def test_an_alu_that_is_missing_is_struck_off_the_set_before_it_is_detached(site: Site) -> None:
    """R4: if the set can't be changed now, nothing is."""
    site.do("/alus", "attach", path="/x/disk0.img", size="1G")
    del site.sp.disks["/x/disk0.img"]
    later = site.restarted()
    later.sp.fail = "forget"
    with pytest.raises(TiergateError, match="on purpose"):
        later.do("/alus/disk0", "detach")
    assert later.do("/alus/disk0", "info").state == "missing"
    later.do("/alus/disk0", "detach")
    assert later.do("/alus", "list") == ()
    assert later.sp.calls.count("forget") == 2
