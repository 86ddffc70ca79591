"""A front end may refuse what it can't express, and a database may fail: then neither has changed (C2)."""

from __future__ import annotations

import pytest

from backstores.errors import TiergateError
from tests.appliance.mic.conftest import Site


def test_what_the_front_end_refuses_is_not_saved(furnished: Site) -> None:
    """R33: as LIO refuses patterns; the command fails, and nothing comes back at the next start."""
    before = furnished.snapshot()
    furnished.sp.fail = "set_exposures"
    with pytest.raises(TiergateError, match="set_exposures failed on purpose"):
        furnished.do("/hosts", "create", name="lab", iqn="iqn.2026-01.example:lab-*")
    assert furnished.snapshot() == before
    assert "lab" not in {host.name for host in furnished.do("/hosts", "list")}


def test_what_can_not_be_saved_is_taken_back_from_the_front_end(furnished: Site) -> None:
    """S2: a host that the settings don't know doesn't get in."""
    before = furnished.snapshot()
    furnished.store.fail = True
    with pytest.raises(TiergateError, match="can't be saved, on purpose"):
        furnished.do("/hosts", "create", name="lab", iqn="iqn.2026-01.example:lab")
    assert furnished.snapshot() == before
