"""Builds the volume that is a legacy ALU as it is: block for block, with nothing between (R5).

There are two sorts. A *legacy* volume is served like any other. To a *direct* one hosts speak past the appliance, as
far as the ALU can be spoken to. Both begin at the ALU's first byte and end at its last.
"""

from __future__ import annotations

import secrets

from appliance.messages import AluState, AluStatus
from appliance.mic.values import exact_size, parse_name
from appliance.vbm import BuiltVolume
from backstores.errors import UsageError
from backstores.objects import Extent, PartitionObject, VolumeObject
from backstores.wwn import RandomBits, new_object_wwn


def build_whole(
    name: str,
    layout: str,
    alu: AluStatus,
    *,
    block_bytes: int,
    size_bytes: int | None,
    created: str,
    random_bits: RandomBits = secrets.randbits,
) -> BuiltVolume:
    """Build the tree of a volume of one of the ``WHOLE_LAYOUTS``; ``created`` is UTC in ISO 8601.

    Raises:
        UsageError: the ALU is no legacy one, or a value does not fit it; says which, and what to do.
    """
    parse_name(name)
    if alu.state is not AluState.LEGACY or alu.wwn is None:
        raise UsageError(f"alu {alu.path} is {alu.state}: layout {layout} takes one attached with legacy=yes")
    if size_bytes not in (None, alu.size_bytes):
        raise UsageError(
            f"size {size_bytes} is not that of alu {alu.path}, {exact_size(alu.size_bytes)}: leave it out,"
            f" a {layout} volume is its alu as it is"
        )
    block_bytes, notes = _block_bytes(alu, block_bytes)
    volume, partition = new_object_wwn(random_bits), new_object_wwn(random_bits)
    head = VolumeObject(
        wwn=volume,
        name=name,
        root=partition,
        layout=layout,
        block_bytes=block_bytes,
        blocks=alu.size_bytes // block_bytes,
        created=created,
    )
    leaf = PartitionObject(wwn=partition, volume=volume, alu=alu.wwn, extent=Extent(0, alu.size_bytes))
    return BuiltVolume((head, leaf), notes)


def _block_bytes(alu: AluStatus, asked_bytes: int) -> tuple[int, tuple[str, ...]]:
    """Choose the size of a block: on a disk its own, in which partition tables and file systems there are written."""
    is_file = alu.kind == "file"
    if asked_bytes > alu.sector_bytes and not is_file:
        raise UsageError(
            f"blocks of {asked_bytes} bytes don't fit alu {alu.path}, whose sectors have {alu.sector_bytes}: what lies"
            " on it would not be found"
        )
    if alu.size_bytes % asked_bytes:
        raise UsageError(f"alu {alu.path} has {alu.size_bytes} bytes, which are not whole blocks of {asked_bytes}")
    if asked_bytes < alu.sector_bytes:
        return alu.sector_bytes, (f"it has blocks of {alu.sector_bytes} bytes, the sectors of its alu",)
    return asked_bytes, ()
