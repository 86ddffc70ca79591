"""What a person has set: all that the appliance remembers beside what lies on the ALUs.

``Settings`` is one immutable whole. A change makes a new one; the store makes it durable in one
transaction, and only then does it take effect. Volumes are not in here: they live on the ALUs (R3)
and are found there again if the settings are lost.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from appliance.messages import Exposure, HostDefinition


class AluSetting(msgspec.Struct, frozen=True, order=True):
    """An ALU that is to be attached. ``size_bytes`` is what was asked for when its file was made.

    A ``legacy`` one is attached as it is, and nothing ever written to it but by its hosts (R5).
    """

    name: str
    path: str
    size_bytes: int | None = None
    legacy: bool = False


class PoolSetting(msgspec.Struct, frozen=True, order=True):
    """ALUs that volumes are placed on together."""

    name: str
    alus: tuple[str, ...]


class Settings(msgspec.Struct, frozen=True):
    """Everything set, each kind in the order of its names."""

    alus: tuple[AluSetting, ...] = ()
    pools: tuple[PoolSetting, ...] = ()
    hosts: tuple[HostDefinition, ...] = ()
    exposures: tuple[Exposure, ...] = ()


class SettingsStore(Protocol):
    """Where the settings are kept. The calls may block: ask from a thread."""

    def load(self) -> Settings:
        """Give what was saved last."""

    def save(self, settings: Settings) -> None:
        """Make this the settings, all or nothing; it is durable on return."""

    def drop_unit(self, wwn: str) -> None:
        """Forget the saved state of a volume's logical unit."""
