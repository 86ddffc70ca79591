from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import disk_folder


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on a real disk."""
    with disk_folder() as folder:
        yield folder
