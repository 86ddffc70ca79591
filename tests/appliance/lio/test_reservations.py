"""What LIO has kept of persistent reservations, handed back to it (APTPL, SPC-4 clause 5.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.lio.reservations import folder, kept_for

SERIAL = "e6cc9ced39df6a2fe5017b744"
KEPT = """PR_REG_START: 0
initiator_fabric=iSCSI
initiator_node=iqn.2026-11.example:one
initiator_sid=00023d000001
sa_res_key=11256099
res_holder=1
res_type=05
target_lun=0
PR_REG_END: 0
PR_REG_START: 1
initiator_node=iqn.2026-11.example:two
sa_res_key=7
res_holder=0
target_lun=0
PR_REG_END: 1
"""


def test_each_registration_is_one_piece_for_the_lun_that_it_has_now(tmp_path: Path) -> None:
    """R31: the kernel takes one at a time, and only for the LUN that its portal group really has."""
    (tmp_path / f"aptpl_{SERIAL}").write_text(KEPT)
    assert list(kept_for(SERIAL, 12, tmp_path)) == [
        "initiator_fabric=iSCSI,initiator_node=iqn.2026-11.example:one,initiator_sid=00023d000001"
        ",sa_res_key=11256099,res_holder=1,res_type=05,target_lun=12",
        "initiator_node=iqn.2026-11.example:two,sa_res_key=7,res_holder=0,target_lun=12",
    ]


@pytest.mark.parametrize("text", ["No Registrations or Reservations\n", ""], ids=["none left", "torn by a power cut"])
def test_a_file_without_registrations_gives_none(tmp_path: Path, text: str) -> None:
    (tmp_path / f"aptpl_{SERIAL}").write_text(text)
    assert list(kept_for(SERIAL, 0, tmp_path)) == []


def test_a_volume_that_never_had_any_has_no_file(tmp_path: Path) -> None:
    assert list(kept_for(SERIAL, 0, tmp_path)) == []


def test_lio_says_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "dbroot").write_text("/var/target\n")
    assert folder(tmp_path) == Path("/var/target/pr")
