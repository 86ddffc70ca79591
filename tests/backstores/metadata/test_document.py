"""The description of the format in docs/ is the one that the declarations give."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from backstores.metadata.bitmap import BitmapSector
from backstores.metadata.document import document
from backstores.metadata.label import LabelSector
from backstores.metadata.layout import AREAS, DATA_START
from backstores.metadata.region import RegionSector
from backstores.metadata.sector import Sector

DOCS = Path(__file__).parents[3] / "docs" / "metadata-format.md"


def test_description_is_up_to_date() -> None:
    assert DOCS.read_text() == document(), "run: python -m backstores.metadata.document > docs/metadata-format.md"


def test_areas_follow_each_other_without_gap() -> None:
    assert AREAS[0].start == 0
    assert all(before.end == after.start for before, after in itertools.pairwise(AREAS))
    assert (AREAS[-1].start, AREAS[-1].end) == (DATA_START, None)


@pytest.mark.parametrize("kind", [LabelSector, RegionSector, BitmapSector])
def test_all_sectors_share_the_first_fields(kind: type[Sector]) -> None:
    """Magic number, version and checksum lie where every version of the format finds them."""
    shared = {(f.first_bit, f.width, name) for name, f in Sector.FIELDS.items()}
    assert shared <= {(f.first_bit, f.width, name) for name, f in kind.FIELDS.items()}
    assert kind.SIZE == 512
