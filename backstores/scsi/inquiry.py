"""INQUIRY: standard data and vital product data pages (SPC-4 clauses 6.6 and 7.8, SBC-3 clause 6.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backstores.scsi import cdb as formats
from backstores.scsi import transfers
from backstores.scsi.limits import MAX_COMPARE_BLOCKS, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, Limits
from backstores.scsi.model import Response
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.unit import Attachment, Call
from backstores.wire import Bits, Bytes, Wire
from backstores.wwn import to_bytes

VERSIONS: Final = (
    0x00A0,  # SAM-5
    0x0460,  # SPC-4
    0x04C0,  # SBC-3
    0x0960,  # iSCSI
)
"""Version descriptors without a claim to a particular revision (SPC-4 table 142)."""


class StandardInquiry(Wire, size=96):
    """SPC-4 table 138."""

    qualifier = Bits(byte=0, msb=7, width=3)
    device_type = Bits(byte=0, msb=4, width=5, doc="0: direct access block device")
    removable = Bits(byte=1, msb=7, width=1)
    version = Bits(byte=2, width=8, value=0x06, doc="SPC-4")
    hierarchical = Bits(byte=3, msb=4, width=1, value=1, doc="HISUP: LUNs as SAM-5 wants them")
    response_format = Bits(byte=3, msb=3, width=4, value=2)
    additional_length = Bits(byte=4, width=8, value=91)
    several_ports = Bits(byte=6, msb=4, width=1, value=1, doc="MULTIP")
    queuing = Bits(byte=7, msb=1, width=1, value=1, doc="CMDQUE")
    vendor = Bytes(byte=8, length=8, pad=b" ")
    product = Bytes(byte=16, length=16, pad=b" ")
    revision = Bytes(byte=32, length=4, pad=b" ")
    versions = Bytes(byte=58, length=16)


class PageHeader(Wire, size=4):
    """What each vital product data page begins with."""

    qualifier = Bits(byte=0, msb=7, width=3)
    device_type = Bits(byte=0, msb=4, width=5)
    code = Bits(byte=1, width=8)
    length = Bits(byte=2, width=16)


class Designator(Wire, size=4):
    """Header of a designation descriptor (SPC-4 clause 7.8.6.1)."""

    protocol = Bits(byte=0, msb=7, width=4)
    code_set = Bits(byte=0, msb=3, width=4)
    protocol_valid = Bits(byte=1, msb=7, width=1)
    association = Bits(byte=1, msb=5, width=2)
    designator_type = Bits(byte=1, msb=3, width=4)
    length = Bits(byte=3, width=8)


class PortDesignator(Wire, size=4):
    """A relative target port, or target port group, designator."""

    number = Bits(byte=2, width=16)


class BlockLimits(Wire, size=60):
    """Page B0, behind its header (SBC-3 clause 6.6.4)."""

    no_zero_length = Bits(byte=0, msb=0, width=1, value=1, doc="WSNZ")
    compare_blocks = Bits(byte=1, width=8)
    granularity = Bits(byte=2, width=16)
    transfer = Bits(byte=4, width=32)
    optimal = Bits(byte=8, width=32)
    unmap_blocks = Bits(byte=16, width=32)
    unmap_descriptors = Bits(byte=20, width=32)
    unmap_granularity = Bits(byte=24, width=32)
    alignment_valid = Bits(byte=28, msb=7, width=1, value=1, doc="UGAVALID")
    unmap_alignment = Bits(byte=28, msb=6, width=31)
    write_same_blocks = Bits(byte=32, width=64)


class Characteristics(Wire, size=60):
    """Page B1, behind its header (SBC-3 clause 6.6.3)."""

    rotation_rate = Bits(byte=0, width=16, value=1, doc="no rotating medium")


class Provisioning(Wire, size=4):
    """Page B2, behind its header (SBC-3 clause 6.6.5)."""

    unmap = Bits(byte=1, msb=7, width=1, value=1, doc="LBPU")
    write_same16 = Bits(byte=1, msb=6, width=1, value=1, doc="LBPWS")
    write_same10 = Bits(byte=1, msb=5, width=1, value=1, doc="LBPWS10")
    reads_zeros = Bits(byte=1, msb=2, width=1, value=1, doc="LBPRZ")
    provisioning_type = Bits(byte=2, msb=2, width=3, value=2, doc="thin")


BINARY, ASCII, UTF8 = 1, 2, 3
OF_UNIT, OF_PORT, OF_DEVICE = 0, 1, 2
T10_VENDOR, NAA, RELATIVE_PORT, PORT_GROUP, NAME_STRING = 1, 3, 4, 5, 8
ISCSI: Final = 5

PROVISIONING: Final = 0xB2
NOT_THERE: Final = 3
NO_DEVICE_TYPE: Final = 0x1F


def inquiry(call: Call, cdb: formats.Inquiry) -> Response:
    """INQUIRY."""
    if cdb.vital_product_data:
        make = _pages(call.at).get(cdb.page)
        if make is None:
            raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 7))
        body = make(call.at)
        data = PageHeader.build(code=cdb.page, length=len(body)) + body
    else:
        _no_page(cdb)
        data = _standard(call.at)
    return Response(data_in=data[: cdb.allocation_bytes])


def absent(cdb: formats.Inquiry) -> Response:
    """INQUIRY to a LUN that is not there: no error, but qualifier 3 (SPC-4 clause 6.6.1)."""
    if cdb.vital_product_data:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 0))
    _no_page(cdb)
    data = StandardInquiry.build(qualifier=NOT_THERE, device_type=NO_DEVICE_TYPE)
    return Response(data_in=data[: cdb.allocation_bytes])


def _no_page(cdb: formats.Inquiry) -> None:
    if cdb.page:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 7))


def _standard(at: Attachment) -> bytes:
    identity = at.unit.identity
    return StandardInquiry.build(
        removable=at.unit.removable,
        vendor=identity.vendor.encode("ascii"),
        product=identity.product.encode("ascii"),
        revision=identity.revision.encode("ascii"),
        versions=b"".join(version.to_bytes(2) for version in VERSIONS),
    )


def _supported_pages(at: Attachment) -> bytes:
    return bytes(sorted(_pages(at)))


def _pages(at: Attachment) -> Mapping[int, Callable[[Attachment], bytes]]:
    """Give the pages of a unit: of provisioning it speaks only where space can be given back."""
    return PAGES if at.unit.offers(formats.Unmap) else {code: PAGES[code] for code in PAGES.keys() - {PROVISIONING}}


def _serial(at: Attachment) -> bytes:
    return at.unit.identity.serial.encode("ascii")


def _identification(at: Attachment) -> bytes:
    """Page 83: the unit by NAA and T10 vendor id; the port by number, group and name; the device by name (R6).

    A port that can't be told is not named: no name is better than another port's.
    """
    identity, port = at.unit.identity, at.port
    t10 = identity.vendor.ljust(8) + identity.serial
    of_port = (
        _designator(OF_PORT, BINARY, RELATIVE_PORT, PortDesignator.build(number=port.relative_port)),
        _designator(OF_PORT, BINARY, PORT_GROUP, PortDesignator.build(number=port.group_tag)),
        _designator(OF_PORT, UTF8, NAME_STRING, _padded(port.name)),
    )
    return b"".join(
        (
            _designator(OF_UNIT, BINARY, NAA, to_bytes(identity.wwn)),
            _designator(OF_UNIT, ASCII, T10_VENDOR, t10.encode("ascii")),
            *(() if port.shared else of_port),
            _designator(OF_DEVICE, UTF8, NAME_STRING, _padded(port.iqn)),
        )
    )


def _designator(association: int, code_set: int, kind: int, value: bytes) -> bytes:
    # The protocol is told where the port or the device is meant: a unit has none.
    protocol = {"protocol": ISCSI, "protocol_valid": 1} if association != OF_UNIT else {}
    return (
        Designator.build(
            association=association, code_set=code_set, designator_type=kind, length=len(value), **protocol
        )
        + value
    )


def _padded(name: str) -> bytes:
    """Give a SCSI name string: UTF-8, ended by a zero, a multiple of 4 bytes long (SPC-4 clause 7.8.6.11)."""
    text = name.encode() + b"\0"
    return text.ljust(-(-len(text) // 4) * 4, b"\0")


def _block_limits(at: Attachment) -> bytes:
    device = at.unit.device
    limits = Limits.of(device)
    physical = device.physical_block_bytes // device.block_bytes
    unit = at.unit
    unmap = {
        "unmap_blocks": MAX_UNMAP_BLOCKS,
        "unmap_descriptors": MAX_UNMAP_DESCRIPTORS,
        # A granularity of one block says nothing, and QEMU (7.2) ends by an assertion where it meets 4096-byte ones.
        "unmap_granularity": physical if physical > 1 else 0,
    }
    return BlockLimits.build(
        compare_blocks=MAX_COMPARE_BLOCKS if unit.offers(transfers.CompareAndWrite) else 0,
        granularity=min(device.granularity_blocks, BlockLimits.granularity.mask),
        transfer=limits.transfer,
        optimal=min(device.optimal_blocks, limits.transfer),
        write_same_blocks=limits.write_same if unit.offers(transfers.WriteSame16) else 0,
        **(unmap if unit.offers(formats.Unmap) else {}),
    )


def _characteristics(at: Attachment) -> bytes:
    return Characteristics.build()


def _provisioning(at: Attachment) -> bytes:
    return Provisioning.build()


PAGES: Final[Mapping[int, Callable[[Attachment], bytes]]] = {
    0x00: _supported_pages,
    0x80: _serial,
    0x83: _identification,
    0xB0: _block_limits,
    0xB1: _characteristics,
    PROVISIONING: _provisioning,
}
