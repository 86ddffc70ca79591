"""Volumes through a real kernel's target: LIO's fabrics on one side, our handler and a stripe of mirrors on the other.

The handler runs in a process of its own, on files in the guest's memory; LIO is set up by hand, without the appliance.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.inside import Guest
from tests.guest.serving import SIZE_BYTES

HBA = 7


@pytest.mark.guest(modules=["target_core_user", "tcm_loop", "sd_mod"])
def test_blocks_written_through_lio_are_read_back(guest: Guest, tmp_path: Path) -> None:
    """R31: the thinnest way through: one WRITE, one READ."""
    backstore = guest.backstore(HBA, "v", SIZE_BYTES)
    handler = guest.serve(HBA, "v", "--fresh")
    disk = guest.loop_disk(backstore)
    assert guest.sh(f"blockdev --getsize64 {disk}") == f"{SIZE_BYTES}\n"
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)) * 1024)
    guest.sh(f"dd if={data} of={disk} bs=64k seek=100 oflag=direct")
    guest.sh(f"dd if={disk} of={tmp_path}/back bs=64k skip=100 count=4 iflag=direct")
    assert (tmp_path / "back").read_bytes() == data.read_bytes()
    handler.terminate()
    assert handler.wait() == 0
