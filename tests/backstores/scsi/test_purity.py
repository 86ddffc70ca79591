"""The decision cores decide: no I/O, no clock, no loop in them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import backstores.scsi

FOLDER = Path(backstores.scsi.__file__).parent
SHELLS = {"runner.py"}
FORBIDDEN = {"asyncio", "os", "socket", "threading", "time"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_imports(path: Path) -> None:
    """One module alone waits for things."""
    tree = ast.parse(path.read_text())
    names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    found = {name.partition(".")[0] for name in names} & FORBIDDEN
    assert bool(found) == (path.name in SHELLS), found
