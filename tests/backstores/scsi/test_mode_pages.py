"""MODE SENSE and MODE SELECT."""

from __future__ import annotations

import pytest

from backstores.scsi.cdb import ModeSelect6, ModeSelect10, ModeSense6, ModeSense10
from backstores.scsi.mode_commands import Header6, Header10, LongDescriptor, ShortDescriptor
from backstores.scsi.model import Function
from backstores.scsi.modes import CachingPage, ControlPage, PageControl
from backstores.scsi.sense import Condition
from backstores.scsi.store import MemoryStore
from backstores.scsi.transfers import Read10, Write10
from tests.support.scsi import BLOCK, Host, condition, memory_unit

RECOVERY = "81 0a c0 00 00 00 00 00 00 00 00 00"
CACHING = "88 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
CONTROL = "8a 0a 00 00 00 00 00 00 ff ff 00 00"
VERSIONS = [
    (PageControl.CURRENT, RECOVERY, CACHING, CONTROL),
    (PageControl.DEFAULT, RECOVERY, CACHING, CONTROL),
    (PageControl.SAVED, RECOVERY, CACHING, CONTROL),
    (
        PageControl.CHANGEABLE,
        "81 0a 00 00 00 00 00 00 00 00 00 00",
        CACHING,
        "8a 0a 04 00 08 00 00 00 00 00 00 00",
    ),
]


def select(host: Host, page: bytes, save: bool = False) -> Condition | None:
    """Send a mode page and give the condition, if any."""
    data = Header10.build() + page
    cdb = ModeSelect10.build(page_format=1, save=save, parameter_bytes=len(data))
    return condition(host.send(cdb, data))


def current(host: Host, page: int) -> bytes:
    """Read one current page."""
    cdb = ModeSense6.build(page=page, no_block_descriptor=1, allocation_bytes=255)
    return host.good(cdb)[Header6.SIZE :]


def caching(write_cache: int) -> bytes:
    """Make a caching page as a host sends it."""
    return CachingPage.build(write_cache=write_cache)


def control(**fields: int) -> bytes:
    """Make a control page as a host sends it."""
    return ControlPage.build(**fields)


@pytest.mark.parametrize(("version", "recovery", "cache", "ctrl"), VERSIONS, ids=[row[0].name for row in VERSIONS])
def test_all_pages(version: PageControl, recovery: str, cache: str, ctrl: str) -> None:
    """SPC-4 clause 6.9: four versions of each page, in ascending order."""
    cdb = ModeSense6.build(page=0x3F, page_control=version, no_block_descriptor=1, allocation_bytes=255)
    data = Host.at(memory_unit()).good(cdb)
    pages = bytes.fromhex(recovery + cache + ctrl)
    assert data == bytes([3 + len(pages), 0, 0x10, 0]) + pages


def test_a_header_with_block_descriptor() -> None:
    host = Host.at(memory_unit(256))
    data = host.good(ModeSense6.build(page=8, allocation_bytes=255))
    assert data[3] == ShortDescriptor.SIZE
    assert ShortDescriptor.parse(data, 4).blocks == 256
    data = host.good(ModeSense10.build(page=8, long_lba=1, allocation_bytes=255))
    assert Header10.parse(data).long_lba
    assert LongDescriptor.parse(data, 8).block_bytes == BLOCK


@pytest.mark.parametrize(
    "cdb",
    [ModeSense6.build(page=0x1D, allocation_bytes=255), ModeSense6.build(page=8, subpage=1, allocation_bytes=255)],
    ids=["page", "subpage"],
)
def test_unknown_pages(cdb: bytes) -> None:
    assert Host.at(memory_unit()).refused(cdb) is Condition.INVALID_FIELD_IN_CDB


def test_without_write_cache_every_write_is_durable() -> None:
    host = Host.at(memory_unit())
    assert host.nexus.fast_write
    assert select(host, caching(0)) is None
    assert not host.nexus.fast_write
    assert host.nexus.fast_read
    assert not CachingPage.parse(current(host, 8)).write_cache


def test_software_write_protection() -> None:
    host = Host.at(memory_unit())
    assert select(host, control(write_protect=1)) is None
    assert host.refused(Write10.build(lba=0, blocks=1), bytes(BLOCK)) is Condition.WRITE_PROTECTED
    assert host.good(ModeSense6.build(page=8, allocation_bytes=255))[2] == 0x90
    host.good(Read10.build(lba=0, blocks=1))
    assert select(host, control(write_protect=0)) is None
    host.good(Write10.build(lba=0, blocks=1), bytes(BLOCK))


def test_descriptor_sense() -> None:
    """D_SENSE: sense data changes its format."""
    host = Host.at(memory_unit())
    assert select(host, control(descriptor_sense=1)) is None
    assert host.send(b"\xff" * 6).sense[0] == 0x72


def test_others_hear_of_a_change() -> None:
    unit = memory_unit()
    one, other = Host.at(unit), Host.at(unit, "b")
    select(one, caching(1))
    assert other.hear() == []  # nothing has changed
    select(one, caching(0))
    assert (one.hear(), other.hear()) == ([], [Condition.MODE_PARAMETERS_CHANGED])


REFUSED = {
    "a bit that can't be changed": (CachingPage.build(write_cache=1)[:3] + b"\1" + bytes(16), "PARAMETERS"),
    "an unknown page": (bytes([0x1D, 2, 0, 0]), "PARAMETERS"),
    "a subpage": (bytes([0x48, 2, 0, 0]), "PARAMETERS"),
    "another length": (bytes([0x08, 0x0A]) + bytes(10), "PARAMETERS"),
    "a page cut short": (caching(0)[:-1], "LENGTH"),
    "half a header": (caching(0) + b"\x0a", "LENGTH"),
}


@pytest.mark.parametrize(("page", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_page_changes_nothing(page: bytes, kind: str) -> None:
    host = Host.at(memory_unit())
    before = current(host, 0x3F)
    found = select(host, control(write_protect=1) + page)
    assert (
        found
        is {
            "PARAMETERS": Condition.INVALID_FIELD_IN_PARAMETERS,
            "LENGTH": Condition.PARAMETER_LIST_LENGTH_ERROR,
        }[kind]
    )
    assert current(host, 0x3F) == before


def test_a_block_descriptor_may_only_repeat() -> None:
    host = Host.at(memory_unit(256))
    cdb = ModeSelect6.build(page_format=1, parameter_bytes=12)
    start = Header6.build(descriptors_length=8)
    host.good(cdb, start + ShortDescriptor.build(blocks=256, block_bytes=512))
    host.good(cdb, start + ShortDescriptor.build(blocks=0, block_bytes=512))
    for other in (ShortDescriptor.build(blocks=255, block_bytes=512), ShortDescriptor.build(block_bytes=4096)):
        assert host.refused(cdb, start + other) is Condition.INVALID_FIELD_IN_PARAMETERS


@pytest.mark.parametrize(
    ("cdb", "data", "found"),
    [
        (ModeSelect6.build(parameter_bytes=4), bytes(4), Condition.INVALID_FIELD_IN_CDB),
        (ModeSelect6.build(page_format=1, parameter_bytes=3), bytes(3), Condition.PARAMETER_LIST_LENGTH_ERROR),
        (ModeSelect6.build(page_format=1, parameter_bytes=24), bytes(4), Condition.PARAMETER_LIST_LENGTH_ERROR),
        (ModeSelect6.build(page_format=1), b"", None),
    ],
    ids=["not in page format", "shorter than a header", "less data than announced", "nothing"],
)
def test_parameter_lists(cdb: bytes, data: bytes, found: Condition | None) -> None:
    assert condition(Host.at(memory_unit()).send(cdb, data)) is found


def test_saved_pages_outlive_a_restart() -> None:
    store = MemoryStore()
    host = Host.at(memory_unit(store=store))
    select(host, caching(0), save=True)
    select(host, control(write_protect=1))
    host = Host.at(memory_unit(store=store))
    assert not CachingPage.parse(current(host, 8)).write_cache
    assert not ControlPage.parse(current(host, 10)).write_protect


def test_a_reset_brings_the_saved_pages_back() -> None:
    """SAM-5 clause 6.3.3."""
    host = Host.at(memory_unit())
    select(host, caching(0), save=True)
    select(host, control(write_protect=1))
    host.manage(Function.LOGICAL_UNIT_RESET)
    host.hear()
    assert not CachingPage.parse(current(host, 8)).write_cache
    assert not ControlPage.parse(current(host, 10)).write_protect


def test_a_stored_page_of_another_length_is_not_taken() -> None:
    store = MemoryStore()
    select(Host.at(memory_unit(store=store)), caching(0), save=True)
    (wwn,) = store.states
    store.states[wwn].modes[0x08] = b"\x88\x01\x00"
    assert CachingPage.parse(current(Host.at(memory_unit(store=store)), 8)).write_cache
