"""Who an appliance is: the names that it has once and for all."""

from __future__ import annotations

from appliance.mic.values import parse_iscsi_pattern, shown
from backstores.errors import UsageError
from backstores.metadata.sector import SUSID_BYTES


def parse_target_name(text: str) -> str:
    """Read the name of a target node.

    Raises:
        UsageError: it is no iSCSI name, or a pattern.
    """
    name = parse_iscsi_pattern(text)
    if set(name) & set("*?"):
        raise UsageError(f"iqn {text!r} has a wildcard; a target has one name")
    return name


def parse_susid(text: str) -> str:
    """Read a SUSID.

    Raises:
        UsageError: it does not fit a label.
    """
    if not (0 < len(text) <= SUSID_BYTES and text.isascii() and text.isprintable()):
        raise UsageError(f"susid {shown(text)} is not 1 to {SUSID_BYTES} printable ascii characters")
    return text
