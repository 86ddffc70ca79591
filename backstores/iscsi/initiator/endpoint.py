"""Where a target is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_PORT: Final = 3260  # IANA's


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host or numeric address (IPv6 without brackets), and a port. ``source``: our own address, where it matters."""

    address: str
    port: int = DEFAULT_PORT
    source: str | None = None

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"
