"""The description of the format in docs/ is the one that the declarations give."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from backstores.metadata.document import FORMATS, document
from backstores.metadata.layout import AREAS, SMALL, TAIL_BYTES, label_addresses, table_addresses
from backstores.metadata.sector import Sector

DOCS = Path(__file__).parents[3] / "docs" / "metadata-format.md"


def test_description_is_up_to_date() -> None:
    assert DOCS.read_text() == document(), "run: python -m backstores.metadata.document > docs/metadata-format.md"


def test_areas_follow_each_other_without_gap() -> None:
    assert AREAS[0].start == 0
    assert all(before.end == after.start for before, after in itertools.pairwise(AREAS))
    assert (AREAS[-1].start, AREAS[-1].end) == (SMALL.data_start, None)


def test_the_end_has_room_for_its_copies() -> None:
    """R1: label and partition table lie twice at the end, behind each other, whatever its size."""
    tables, labels = table_addresses(0)[2:], label_addresses(0)[2:]
    assert -TAIL_BYTES <= tables[0] < tables[1] < labels[0] < labels[1] < 0


@pytest.mark.parametrize("kind", [kind for _, kind in FORMATS if issubclass(kind, Sector)])
def test_all_sectors_share_the_first_fields(kind: type[Sector]) -> None:
    """Magic number, version and checksum lie where every version of the format finds them."""
    shared = {(f.first_bit, f.width, name) for name, f in Sector.FIELDS.items()}
    assert shared <= {(f.first_bit, f.width, name) for name, f in kind.FIELDS.items()}
    assert kind.SIZE == 512
