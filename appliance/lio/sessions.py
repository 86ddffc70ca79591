"""Who is logged in, as LIO tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from appliance.lio.tree import OPEN
from appliance.messages import Exposure, HostDefinition, SessionStatus

_ADDRESS: Final = re.compile(r"^\s*Address (\S+)", re.MULTILINE)
_LOGGED_IN: Final = "LIO Session ID"


def read_sessions(group: Path, hosts: Sequence[HostDefinition], exposures: Sequence[Exposure]) -> list[SessionStatus]:
    """Read the sessions of a portal group; of an initiator without an ACL LIO tells the name alone."""
    return [
        SessionStatus(
            host=host.name,
            initiator=initiator,
            address=address,
            luns=tuple(sorted(row.lun for row in exposures if row.host == host.name)),
        )
        for host in hosts
        for initiator, address in (_anyone(group) if host.iqn == OPEN else _known(group, host))
    ]


def _known(group: Path, host: HostDefinition) -> Iterator[tuple[str, str]]:
    info = _text(group / "acls" / host.iqn.lower() / "info")
    if _LOGGED_IN in info:
        found = _ADDRESS.search(info)
        yield host.iqn, found[1] if found else ""


def _anyone(group: Path) -> Iterator[tuple[str, str]]:
    for name in _text(group / "dynamic_sessions").replace("\0", "\n").split():
        yield name, ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # not made, or just removed: nobody is logged in there
        return ""
