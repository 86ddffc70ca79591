"""What we want in LIO: the folders under /sys/kernel/config/target, as values.

A ``Node`` is one folder that we make there. Its settings are written in their order; a link leads a LUN to
its backstore, and a mapped LUN to the LUN of its portal group. Nothing here reads or writes anything.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.messages import Exposure, HostDefinition
from backstores.scsi.unit import Identity
from backstores.wwn import COMPANY_ID, Wwn

OPEN: Final = "*"
"""The pattern of a host that stands for every initiator."""

HBA: Final = "core/user_5447001"
"""The folder of our backstores: far from those that other tools count up from 0."""

DATA_AREA_MB: Final = 64
"""What one device may hold of data under way. The kernel takes it page by page, as it is needed."""

RING_MB: Final = 1
"""The kernel takes the whole ring at once, and never swaps it: its default of 8 MiB would make 250 volumes cost 2 GiB.
In one, thousands of commands have room, and a session has 64 under way."""


class Kind(enum.IntEnum):
    """The sorts of folders, in the order in which they can be made."""

    HBA = 0
    BACKSTORE = 1
    TARGET = 2
    GROUP = 3
    LUN = 4
    ACL = 5
    MAPPED_LUN = 6
    PORTAL = 7


@dataclass(frozen=True, slots=True)
class Node:
    """One folder. The settings stay out of every repr: some of them are secrets (S2)."""

    kind: Kind
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    link: str = ""
    namespace: str = ""  # of a portal: it listens in the network in which its folder is made


Tree = Mapping[str, Node]
"""Nodes by their paths below /sys/kernel/config/target."""

ENABLE: Final = "enable"
ALIAS: Final = "param/TargetAlias"
SIZE: Final = "attrib/dev_size"
SERIAL: Final = "wwn/vpd_unit_serial"
ACL_AUTHENTICATION: Final = "attrib/authentication"
WRITE_PROTECT: Final = "write_protect"

LIVE: Final[Mapping[Kind, frozenset[str] | None]] = {
    Kind.BACKSTORE: frozenset({SIZE}),
    Kind.GROUP: None,
    Kind.MAPPED_LUN: None,
}
"""Which settings may change while a node is in use; None is all of them. Another change makes the node anew.

An ACL has none: who changes a secret wants the sessions that knew the old one to end.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """A portal group: all portals in one network namespace, "" being the one of this process."""

    tag: int
    portals: tuple[str, ...]
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """Who we are. ``mark`` tells this appliance's things from everybody else's."""

    mark: str
    iqn: str
    groups: tuple[Group, ...]

    def alias(self, namespace: str = "") -> str:
        """The TargetAlias by which a portal group is ours; it says where its portals listen."""
        return f"Tiergate {self.mark} {namespace}".rstrip()

    def namespace_in(self, alias: str) -> str | None:
        """Read the namespace off a TargetAlias; None: the group is not ours."""
        ours = self.alias()
        return alias.removeprefix(ours).strip() if f"{alias} ".startswith(f"{ours} ") else None

    @property
    def target(self) -> str:
        """The folder of our target node."""
        return f"iscsi/{self.iqn}"

    def group(self, tag: int) -> str:
        """The folder of a portal group."""
        return f"{self.target}/tpgt_{tag}"

    @property
    def group_folders(self) -> tuple[str, ...]:
        """The folders of all portal groups."""
        return tuple(self.group(group.tag) for group in self.groups)

    def backstore(self, wwn: Wwn) -> str:
        """The folder of a volume's backstore."""
        return f"{HBA}/{self.backstore_prefix}{wwn}"

    @property
    def backstore_prefix(self) -> str:
        """What the names of our backstores begin with."""
        return f"tiergate-{self.mark}-"

    def wwn_of(self, backstore: str) -> Wwn:
        """Give the volume of a backstore's folder."""
        return Wwn(backstore.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume that is on line, as a backstore shows it."""

    wwn: Wwn
    size_bytes: int
    block_bytes: int


def wanted(
    site: Site,
    disks: Mapping[Wwn, Disk],
    hosts: Sequence[HostDefinition],
    exposures: Sequence[Exposure],
    numbers: Mapping[Wwn, int],
) -> dict[str, Node]:
    """Give the whole tree of a storage processor. ``numbers``: see ``lun_numbers``.

    Exposures of volumes that are off line are left out, and so are hosts that ``rules`` refuses.
    """
    seen = [exposure for exposure in exposures if exposure.volume in disks]
    # Only a host that sees something opens the portal group for everybody.
    opened = next((host for host in hosts if host.iqn == OPEN and any(e.host == host.name for e in exposures)), None)
    volumes = {exposure.volume for exposure in seen}
    tree = {HBA: Node(Kind.HBA), site.target: Node(Kind.TARGET)}
    tree.update((site.backstore(wwn), _backstore(disks[wwn])) for wwn in volumes)
    # By every group a host sees the same. Its ways to a volume end at one backstore, so they share its reservations.
    for group in site.groups:
        path = site.group(group.tag)
        tree[path] = _group(site.alias(group.namespace), opened)
        tree.update((_lun(path, numbers[wwn]), Node(Kind.LUN, link=site.backstore(wwn))) for wwn in volumes)
        for host in hosts:
            if host.iqn != OPEN:
                tree.update(_acl(path, host, (e for e in seen if e.host == host.name), numbers))
        for portal in group.portals:
            tree[f"{path}/np/{portal}"] = Node(Kind.PORTAL, namespace=group.namespace)
    return tree


def lun_numbers(
    hosts: Iterable[HostDefinition], exposures: Iterable[Exposure], before: Mapping[Wwn, int]
) -> dict[Wwn, int]:
    """Number the exposed volumes in the portal groups: as they were before, new ones from the lowest free number.

    Hosts don't see these numbers, but for the open host: LIO shows it a portal group's LUNs as they are,
    so its own numbers go first.
    """
    open_hosts = {host.name for host in hosts if host.iqn == OPEN}
    rows = list(exposures)
    numbers = {row.volume: row.lun for row in rows if row.host in open_hosts}
    for volume in dict.fromkeys(row.volume for row in rows):
        if volume not in numbers:
            taken = set(numbers.values())
            kept = before.get(volume)
            numbers[volume] = (
                kept
                if kept is not None and kept not in taken
                else next(number for number in _count() if number not in taken | set(before.values()))
            )
    return numbers


def numbers_in(site: Site, tree: Tree) -> dict[Wwn, int]:
    """Read the numbers of ``lun_numbers`` off a tree."""
    return {
        site.wwn_of(node.link): int(path.rpartition("_")[2])
        for path, node in tree.items()
        if node.kind is Kind.LUN and node.link
    }


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _lun(group: str, number: int) -> str:
    return f"{group}/lun/lun_{number}"


def _backstore(disk: Disk) -> Node:
    """Give a volume's backstore. What the kernel says of a device itself agrees with INQUIRY: the NAA name that it
    makes is the company id and the serial number (R6)."""
    identity = Identity(disk.wwn)
    return Node(
        Kind.BACKSTORE,
        {
            "control": f"dev_config=tiergate/{disk.wwn},hw_block_size={disk.block_bytes}"
            f",max_data_area_mb={DATA_AREA_MB},cmd_ring_size_mb={RING_MB},nl_reply_supported=-1",
            SIZE: str(disk.size_bytes),
            # Without a handler commands wait, and are answered after its restart; the host has a timeout of its own.
            "attrib/cmd_time_out": "0",
            "attrib/tmr_notification": "1",
            ENABLE: "1",
            SERIAL: identity.serial,
            "wwn/company_id": f"{COMPANY_ID:#08x}",
            "wwn/vendor_id": identity.vendor,
            "wwn/product_id": identity.product,
            "wwn/revision": identity.revision,
        },
    )


def _group(alias: str, opened: HostDefinition | None) -> Node:
    any_initiator = "0" if opened is None else "1"
    return Node(
        Kind.GROUP,
        {
            ALIAS: alias,
            "attrib/generate_node_acls": any_initiator,
            "attrib/cache_dynamic_acls": any_initiator,
            "attrib/demo_mode_write_protect": "0",
            "attrib/prod_mode_write_protect": "0",
            # An initiator without an ACL is not even told of the target (S2).
            "attrib/demo_mode_discovery": any_initiator,
            "attrib/login_timeout": "15",
            "param/HeaderDigest": "CRC32C,None",
            "param/DataDigest": "CRC32C,None",
            # For initiators without an ACL; each ACL says for itself.
            "attrib/authentication": "0" if opened is not None and not opened.chap_user else "1",
            **_secrets(opened),
            ENABLE: "1",
        },
    )


def _acl(
    group: str, host: HostDefinition, exposures: Iterable[Exposure], numbers: Mapping[Wwn, int]
) -> Iterator[tuple[str, Node]]:
    path = f"{group}/acls/{host.iqn.lower()}"
    yield path, Node(Kind.ACL, {**_secrets(host), ACL_AUTHENTICATION: "1" if host.chap_user else "0"})
    for exposure in exposures:
        yield (
            f"{path}/lun_{exposure.lun}",
            Node(Kind.MAPPED_LUN, {WRITE_PROTECT: "0"}, link=_lun(group, numbers[exposure.volume])),
        )


def _secrets(host: HostDefinition | None) -> dict[str, str]:
    """Give the CHAP settings; empty ones clear what is there. ``mutual``: we prove ourselves, too."""
    return {
        "auth/userid": host.chap_user if host else "",
        "auth/password": host.chap_secret if host else "",
        "auth/userid_mutual": host.mutual_user if host else "",
        "auth/password_mutual": host.mutual_secret if host else "",
    }


NAMES: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.BACKSTORE: tuple(_backstore(Disk(Wwn("0" * 32), 0, 512)).settings),
    Kind.GROUP: tuple(_group("", None).settings),
    Kind.ACL: (*_secrets(None), ACL_AUTHENTICATION),
    Kind.MAPPED_LUN: (WRITE_PROTECT,),
}
"""Which settings we look after, and so which ones are read back."""
