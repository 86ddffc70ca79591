"""What the control plane does when something fails, as transcripts to be read (R9, R10, R16, R28)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.transcript import Player

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_it_happens_as_it_is_written(path: Path) -> None:
    """R9, R10: after each command exactly this is logged."""
    written = path.read_text()
    assert Player().play(written) == written, f"read it, then: python -m tests.support.transcript {path}"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 6
