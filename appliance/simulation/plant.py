"""Sites, ALUs and volumes for simulations."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.control.values import Show
from appliance.messages import Exposure, HostDefinition
from appliance.simulation.plane import Shelf, SimAlu
from appliance.vcm.vocabulary import Site
from backstores.objects import (
    MIB,
    AnyObject,
    ConcatObject,
    Extent,
    Leg,
    MirrorObject,
    PartitionObject,
    StripeObject,
    VolumeObject,
)
from backstores.wwn import COMPANY_ID, Wwn

BLOCKS = 2048


def object_wwn(number: int) -> Wwn:
    """Give an object the name of a number."""
    return Wwn(f"{0x6 << 124 | COMPANY_ID << 100 | number:032x}")


def alu_wwn(number: int) -> Wwn:
    """Give an ALU the name of a number."""
    return Wwn(f"{0x5 << 60 | COMPANY_ID << 36 | number:016x}")


def make_site(sps: int, alus: int, reach: int = 2) -> tuple[Site, Shelf]:
    """Make storage processors, and ALUs that each hang on ``reach`` of them."""
    names = tuple(f"sp{number + 1}" for number in range(sps))
    shelf = Shelf()
    for number in range(alus):
        shelf.add(SimAlu(f"a{number}", alu_wwn(number)))
    near = range(min(reach, sps))
    ways = {f"a{number}": tuple(names[(number + step) % sps] for step in near) for number in range(alus)}
    return Site(names, ways), shelf


class Builder:
    """Makes volumes. Each has numbers of its own for its objects."""

    def __init__(self) -> None:
        self._number = 0

    def _name(self) -> Wwn:
        self._number += 1
        return object_wwn(self._number)

    def volume(self, layout: str, alus: Sequence[Wwn]) -> tuple[AnyObject, ...]:
        """Make a volume: linear, concat, stripe, mirror or stripe-mirror (of two legs), one partition on each ALU."""
        volume = self._name()
        partitions = [self._partition(volume, alu) for alu in alus]
        upper: list[AnyObject] = []
        root = self._root(layout, volume, partitions, upper)
        head = VolumeObject(
            wwn=volume, name=f"v{volume[-4:]}", root=root, layout=layout, block_bytes=512, blocks=BLOCKS, created=""
        )
        return (head, *upper, *partitions)

    def _partition(self, volume: Wwn, alu: Wwn) -> PartitionObject:
        name = self._name()
        return PartitionObject(wwn=name, volume=volume, alu=alu, extent=Extent(int(name[-6:], 16) * MIB, MIB))

    def _root(self, layout: str, volume: Wwn, parts: Sequence[PartitionObject], upper: list[AnyObject]) -> Wwn:
        names = tuple(part.wwn for part in parts)
        if layout == "linear":
            return names[0]
        wwn = self._name()
        if layout == "mirror":
            legs = tuple(Leg(name) for name in names)
            upper.append(MirrorObject(wwn=wwn, volume=volume, legs=legs, region_blocks=BLOCKS, blocks=BLOCKS))
        elif layout == "stripe":
            upper.append(StripeObject(wwn=wwn, volume=volume, children=names, chunk_blocks=128, blocks=BLOCKS))
        elif layout == "concat":
            upper.append(ConcatObject(wwn=wwn, volume=volume, children=names, blocks=BLOCKS))
        else:
            mirrors: list[AnyObject] = []
            columns = tuple(self._root("mirror", volume, parts[at : at + 2], mirrors) for at in range(0, len(parts), 2))
            upper.append(StripeObject(wwn=wwn, volume=volume, children=columns, chunk_blocks=128, blocks=BLOCKS))
            upper.extend(mirrors)
        return wwn


def shown_by(volume: Wwn, sps: Sequence[str], host: str = "h1") -> Show:
    """Have a host see a volume through these storage processors; through none, nobody sees it."""
    if not sps:
        return Show()
    definition = HostDefinition(name=host, iqn=f"iqn.2026-01.example:{host}")
    return Show((definition,), (Exposure(host=host, volume=volume, lun=0, sps=tuple(sps)),))
