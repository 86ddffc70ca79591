"""The architecture, checked: who imports whom, that decision cores do no I/O, and that the layout table is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("appliance", "backstores", "cli")
IO_MODULES = frozenset({"asyncio", "os", "select", "selectors", "socket", "subprocess", "threading", "time"})

ERRORS = frozenset({"backstores.errors", "backstores.errors.TiergateError", "backstores.errors.UsageError"})

SHELLS = frozenset(
    {
        "backstores/iscsi/initiator/path.py",  # logs in again and again
        "backstores/iscsi/initiator/session.py",  # connects
        "backstores/iscsi/initiator/target.py",  # waits for a path
        "backstores/iscsi/initiator/transport.py",  # receives and sends
        "backstores/iscsi/portal.py",  # listens
        "backstores/iscsi/transport.py",  # receives and sends
        "backstores/metadata/gsstore.py",  # the same for the GS set
        "backstores/metadata/store.py",  # carries out what the rest of metadata decides
        "backstores/scsi/runner.py",  # awaits the device
        "backstores/scsi/target.py",  # awaits commands that are being aborted
    }
)
"""Modules in the folders of decision cores that carry out what those decide."""

CORE_PLACES = (
    "appliance/assembly.py",
    "appliance/control",
    "appliance/decisions.py",
    "appliance/inbox.py",
    "appliance/mvsm.py",
    "appliance/placement.py",
    "appliance/vbm.py",
    "appliance/vcm",
    "appliance/vom.py",
    "appliance/vsm.py",
    "appliance/whole.py",
    "backstores/block.py",
    "backstores/errors.py",
    "backstores/iscsi",
    "backstores/metadata",
    "backstores/objects.py",
    "backstores/scsi",
    "backstores/transforms",
    "backstores/volume/gate.py",
    "backstores/volume/holdings.py",
    "backstores/volume/loss.py",
    "backstores/wire.py",
    "backstores/wwn.py",
)


def modules(place: str) -> list[str]:
    """List the modules at a place, as paths from the root."""
    path = ROOT / place
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [str(module.relative_to(ROOT)) for module in found]


CORES = [module for place in CORE_PLACES for module in modules(place) if module not in SHELLS]


@cache
def imports(module: str) -> frozenset[str]:
    """Name what a module imports at run time, with dots; imports for the type checker alone don't count."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse((ROOT / module).read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        pending.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def below(module: str) -> Iterator[str]:
    """Yield the project's modules that a module imports."""
    for name in imports(module):
        if name.split(".")[0] in PACKAGES:
            path = Path(*name.split("."))
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if (ROOT / candidate).is_file():
                    yield str(candidate)


def ways_to_io(module: str) -> list[str]:
    """Give the chains of imports by which a module reaches one that does I/O."""
    ways: list[str] = []
    pending = [(module,)]
    seen = {module}
    while pending:
        chain = pending.pop()
        ways += [" -> ".join((*chain, name)) for name in sorted(imports(chain[-1]) & IO_MODULES)]
        for child in below(chain[-1]):
            if child not in seen:
                seen.add(child)
                pending.append((*chain, child))
    return ways


@pytest.mark.parametrize("module", modules("backstores"))
def test_the_data_plane_knows_nothing_of_the_control_plane(module: str) -> None:
    above = {name for name in imports(module) if name.split(".")[0] in {"appliance", "cli"}}
    assert not above


@pytest.mark.parametrize("module", modules("cli"))
def test_the_shell_knows_nothing_of_the_data_plane(module: str) -> None:
    """It asks the management by its socket (C1)."""
    assert not {name for name in imports(module) if name.split(".")[0] == "backstores"} - ERRORS


@pytest.mark.parametrize("module", CORES)
def test_a_decision_core_does_no_io(module: str) -> None:
    """Not by anything that it imports, either."""
    assert not ways_to_io(module)


@pytest.mark.parametrize("module", sorted(SHELLS))
def test_a_shell_is_there_and_is_one(module: str) -> None:
    """A row of SHELLS that excuses nothing must go."""
    assert ways_to_io(module)


def layout_rows() -> list[str]:
    """List the paths in the layout table of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    [*_, layout] = re.split(r"^## .*layout.*$", text, maxsplit=1, flags=re.MULTILINE | re.IGNORECASE)
    return re.findall(r"^\|\s*`([^`]+)`\s*\|", layout.partition("\n## ")[0], re.MULTILINE)


@pytest.mark.parametrize("path", layout_rows())
def test_what_the_layout_table_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_layout_table_is_found() -> None:
    assert "backstores" in layout_rows()
