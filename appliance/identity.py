"""Who the appliance is: made at the first start, and kept in the settings from then on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.mic.store import Store, open_store
from backstores.errors import UsageError

IQN_PREFIX: Final = "iqn.2026-11.example.tiergate"


@dataclass(frozen=True, slots=True)
class Identity:
    """Its SUSID, by which it knows its ALUs, and the name of its target node."""

    susid: str
    iqn: str


def identity(store: Store, state: Path, susid: str | None = None, iqn: str | None = None) -> Identity:
    """Give the identity, kept or new; ``susid`` and ``iqn`` are what a person asks for. Nothing is changed.

    Raises:
        UsageError: another SUSID was asked for than the one in the settings.
    """
    kept = store.value("susid")
    chosen = kept or susid or f"TG-{secrets.token_hex(16)}"
    if susid not in (None, chosen):
        raise UsageError(f"susid {susid!r}: the settings in {state} are of appliance {chosen} already")
    return Identity(chosen, iqn or store.value("iqn") or f"{IQN_PREFIX}:{chosen[-8:]}")


def keep(who: Identity, store: Store) -> None:
    """Remember it."""
    for key, text in (("susid", who.susid), ("iqn", who.iqn)):
        if store.value(key) != text:
            store.set_value(key, text)


def settled(state: Path, database: str | None, susid: str | None, iqn: str | None) -> Identity:
    """Give the identity, and remember it, before any process of a system runs that has to know it.

    Raises:
        TiergateError: the settings can't be used, or another SUSID was asked for than the one in them.
    """
    store = open_store(state, database)
    try:
        who = identity(store, state, susid, iqn)
        keep(who, store)
        return who
    finally:
        store.close()
