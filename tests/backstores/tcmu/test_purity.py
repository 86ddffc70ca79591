"""The ring and the announcements are read without I/O, clock or loop."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import backstores.tcmu

FOLDER = Path(backstores.tcmu.__file__).parent
SHELLS = {"handler.py", "netlink.py", "uio.py"}
FORBIDDEN = {"asyncio", "socket", "threading", "time", "mmap"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_imports(path: Path) -> None:
    """The three shells alone do I/O."""
    tree = ast.parse(path.read_text())
    names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    assert bool({name.partition(".")[0] for name in names} & FORBIDDEN) == (path.name in SHELLS)
