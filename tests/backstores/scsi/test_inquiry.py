"""INQUIRY data: who a unit is and what it can do."""

import pytest

from backstores.device import MemoryDevice
from backstores.scsi import lun
from backstores.scsi.cdb import Inquiry
from backstores.scsi.inquiry import BlockLimits, Designator, PageHeader, StandardInquiry
from backstores.scsi.sense import Condition
from backstores.scsi.target import Exposed, TargetDevice
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.scsi import IQN, WWN, Host, memory_unit


def page(host: Host, code: int) -> bytes:
    """Read a vital product data page, without its header."""
    data = host.good(Inquiry.build(vital_product_data=1, page=code, allocation_bytes=0xFFFF))
    header = PageHeader.parse(data)
    assert header.code == code
    assert header.length == len(data) - PageHeader.SIZE
    return data[PageHeader.SIZE :]


def designators(body: bytes) -> list[tuple[int, int, int, bytes]]:
    """Take page 83 apart: association, code set, type and value of each designator."""
    found = []
    while body:
        header = Designator.parse(body)
        end = Designator.SIZE + header.length
        found.append((header.association, header.code_set, header.designator_type, body[Designator.SIZE : end]))
        body = body[end:]
    return found


def test_standard_data() -> None:
    data = Host.at(memory_unit()).good(Inquiry.build(allocation_bytes=96))
    assert data[:8] == bytes.fromhex("00 00 06 12 5b 00 10 02")
    assert data[8:36] == b"TIERGATEVIRTUAL VOLUME  0001"
    assert data[58:66] == bytes.fromhex("00a0 0460 04c0 0960")


def test_removable_is_an_attribute_of_the_unit() -> None:
    data = Host.at(memory_unit(removable=True)).good(Inquiry.build(allocation_bytes=96))
    assert StandardInquiry.parse(data).removable


def test_an_allocation_length_cuts_the_data() -> None:
    """SPC-4 clause 4.2.5.6: cut without an error."""
    assert len(Host.at(memory_unit()).good(Inquiry.build(allocation_bytes=5))) == 5


def test_supported_pages_are_all_there_in_order() -> None:
    host = Host.at(memory_unit())
    pages = page(host, 0x00)
    assert pages == bytes.fromhex("00 80 83 b0 b1 b2")
    for code in pages:
        page(host, code)


def test_the_identity_is_the_wwn() -> None:
    """R6: volumes are known by their 16-byte NAA name, ports and device by theirs."""
    target = TargetDevice(IQN)
    nexus = target.open_nexus("iqn.x,i,0x1", {0: Exposed(memory_unit())}, group_tag=3, relative_port=2)
    found = designators(page(Host(nexus), 0x83))
    serial = WWN[7:].encode()
    assert found == [
        (0, 1, 3, bytes.fromhex(WWN)),
        (0, 2, 1, b"TIERGATE" + serial),
        (1, 1, 4, bytes.fromhex("0000 0002")),
        (1, 1, 5, bytes.fromhex("0000 0003")),
        (1, 3, 8, f"{IQN},t,0x0003".encode() + b"\0"),
        (2, 3, 8, IQN.encode() + b"\0\0"),
    ]
    assert page(Host(nexus), 0x80) == serial


def test_block_limits_come_from_the_device() -> None:
    device = MemoryDevice(1 << 14, 512)
    device.granularity_blocks, device.optimal_blocks = 128, 256
    limits = BlockLimits.parse(page(Host.at(LogicalUnit(device, Identity(WWN))), 0xB0))
    assert (limits.granularity, limits.optimal, limits.transfer) == (128, 256, 16384)
    assert (limits.unmap_granularity, limits.alignment_valid, limits.unmap_alignment) == (8, 1, 0)
    assert (limits.compare_blocks, limits.no_zero_length) == (128, 1)


def test_thin_provisioning_and_no_rotation() -> None:
    host = Host.at(memory_unit())
    assert page(host, 0xB1)[:2] == bytes.fromhex("0001")
    assert page(host, 0xB2) == bytes.fromhex("00 e4 02 00")


@pytest.mark.parametrize(
    "cdb",
    [
        Inquiry.build(vital_product_data=1, page=0xC0, allocation_bytes=96),
        Inquiry.build(page=0x80, allocation_bytes=96),
        bytes.fromhex("12 02 00 00 60 00"),
    ],
    ids=["unknown page", "a page without EVPD", "CMDDT"],
)
def test_refused(cdb: bytes) -> None:
    assert Host.at(memory_unit()).refused(cdb) is Condition.INVALID_FIELD_IN_CDB


def test_an_absent_lun_says_so() -> None:
    """SPC-4 clause 6.6.1: no error, but peripheral qualifier 3."""
    host = Host.at({5: Exposed(memory_unit())})
    assert host.good(Inquiry.build(allocation_bytes=96), lun=0)[0] == 0x7F
    assert host.refused(bytes(6), lun=0) is Condition.UNIT_NOT_SUPPORTED
    assert lun.encode(0) not in host.nexus.fast_read


def test_a_port_that_can_not_be_told_is_not_named() -> None:
    """R31: behind LIO commands of all ports come by one nexus; the unit and the device are named as ever."""
    device = TargetDevice(IQN, (1, 2))
    found = {}
    for shared in (False, True):
        nexus = device.open_nexus("iqn.2026-11.example:lio", {0: Exposed(memory_unit())}, shared=shared)
        found[shared] = designators(page(Host(nexus), 0x83))
    of_port = 1
    assert [designator for designator in found[False] if designator[0] != of_port] == found[True]
    assert len(found[False]) == len(found[True]) + 3
