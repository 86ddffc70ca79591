"""What is asked of a target before it is used; answers that make no sense are refused (R12, S3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from errno import EINVAL, EIO, ENODEV

import pytest

from backstores.errors import ProtocolError
from backstores.iscsi.initiator import questions
from backstores.iscsi.initiator.outcome import CommandFailed
from backstores.scsi import cdb as formats
from backstores.scsi import inquiry, lun
from backstores.scsi.reports import Capacity16
from backstores.scsi.sense import Condition, Sense, encode
from tests.support.remote import house, identity, make_unit, reached, wwn_of

REFUSED = CommandFailed("no", EINVAL, encode(Sense(Condition.INVALID_FIELD_IN_CDB)))


@dataclass
class Answers:
    """A target that answers by a table: by the opcode, or by the page of an INQUIRY."""

    by: dict[int | tuple[int, int], bytes | Exception] = field(default_factory=dict)
    asked: list[tuple[int, bytes]] = field(default_factory=list)

    async def execute(self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"") -> memoryview:
        self.asked.append((lun, cdb))
        key = (0x12, cdb[2]) if cdb[0] == 0x12 else cdb[0]
        answer = self.by[key]
        if isinstance(answer, Exception):
            raise answer
        return memoryview(answer[:data_in_bytes])


def page(code: int, body: bytes, length: int | None = None) -> bytes:
    """Make a vital product data page."""
    return inquiry.PageHeader.build(code=code, length=len(body) if length is None else length) + body


def designator(value: bytes, kind: int = inquiry.NAA, association: int = inquiry.OF_UNIT) -> bytes:
    """Make a designation descriptor."""
    header = inquiry.Designator.build(
        association=association, designator_type=kind, code_set=inquiry.BINARY, length=len(value)
    )
    return header + value


def luns(*fields: int) -> bytes:
    """Make a REPORT LUNS answer."""
    return (8 * len(fields)).to_bytes(4) + bytes(4) + b"".join(field.to_bytes(8) for field in fields)


@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_all_units_of_our_own_target_are_listed(count: int) -> None:
    """R12: more than fit the first answer, and beyond 255 by flat addressing."""

    async def scenario() -> list[int]:
        unit = make_unit(1, 8)
        async with house(dict.fromkeys(range(count), unit), portals=1) as at, reached(at) as target:
            return await questions.list_luns(target)

    assert asyncio.run(scenario()) == list(range(count))


def test_the_highest_lun_can_be_used() -> None:
    async def scenario() -> None:
        async with house({16383: make_unit(1)}, portals=1) as at, reached(at) as target:
            assert await target.units() == {wwn_of(1): 16383}
            assert (await questions.examine(target, 16383)).blocks == 8192

    asyncio.run(scenario())


def test_units_that_one_level_does_not_address_are_left_out() -> None:
    target = Answers({0xA0: luns(0, lun.encode(300), 0xC101 << 48, 0x8001 << 48, 1 << 48 | 1)})
    assert asyncio.run(questions.list_luns(target)) == [0, 300]


@pytest.mark.parametrize(
    "answer",
    [pytest.param(b"\xff\xff\xff\xff" + bytes(4), id="a length of 4 GiB"), pytest.param(luns(0)[:12], id="cut short")],
)
def test_a_list_of_luns_is_bounded(answer: bytes) -> None:
    target = Answers({0xA0: answer})
    assert asyncio.run(questions.list_luns(target)) == []
    assert all(formats.ReportLuns.parse(cdb).allocation_bytes <= questions.MOST_LUNS_BYTES for _, cdb in target.asked)


NAA_6, NAA_5, NAA_2 = bytes.fromhex("6025447" + "0" * 25), bytes.fromhex("5025447000000001"), bytes.fromhex("2" * 16)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        pytest.param(designator(NAA_6), NAA_6, id="NAA 6"),
        pytest.param(designator(NAA_5) + designator(NAA_6), NAA_6, id="NAA 6 before NAA 5"),
        pytest.param(designator(NAA_5), NAA_5, id="NAA 5"),
        pytest.param(designator(NAA_5, association=inquiry.OF_PORT), None, id="of the port"),
        pytest.param(designator(b"VENDOR", inquiry.T10_VENDOR), None, id="T10"),
        pytest.param(designator(NAA_2), None, id="NAA 2"),
        pytest.param(designator(NAA_6[:12]), None, id="a length that NAA does not have"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_unit_is_known_by_its_name(body: bytes, name: bytes | None) -> None:
    found = asyncio.run(questions.identify(Answers({(0x12, 0x83): page(0x83, body)}), 0))
    assert found == (None if name is None else name.hex())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(page(0x83, designator(NAA_6)[:10]), id="a designator that reaches past the page"),
        pytest.param(page(0x83, b"\1"), id="half a designator"),
        pytest.param(page(0x83, designator(NAA_6), length=60), id="a page that was cut short"),
        pytest.param(page(0x80, b"serial"), id="another page"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_identification_that_makes_no_sense_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(questions.identify(Answers({(0x12, 0x83): answer}), 0))


def capacity(last_lba: int = 99, block_bytes: int = 512, exponent: int = 3) -> bytes:
    """Make a READ CAPACITY (16) answer."""
    return Capacity16.build(last_lba=last_lba, block_bytes=block_bytes, physical_exponent=exponent)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(capacity(block_bytes=0), id="blocks of 0 bytes"),
        pytest.param(capacity(block_bytes=520), id="blocks of 520 bytes"),
        pytest.param(capacity(last_lba=(1 << 64) - 1), id="more than there can be"),
        pytest.param(capacity()[:8], id="cut short"),
    ],
)
def test_a_capacity_that_makes_no_sense_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(questions.examine(Answers({0x9E: answer}), 0))


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param({(0x12, 0): REFUSED}, id="no pages at all"),
        pytest.param({(0x12, 0): page(0, b"\x00\x83")}, id="no such page"),
        pytest.param({(0x12, 0): page(0, b"\x00\xb0"), (0x12, 0xB0): page(0xB0, bytes(12))}, id="a short one"),
    ],
)
def test_a_target_need_not_tell_its_limits(pages: dict[int | tuple[int, int], bytes | Exception]) -> None:
    """SBC-2's page is shorter, and old targets have none: then we keep to a MiB, and unmap nothing."""
    facts = asyncio.run(questions.examine(Answers({0x9E: capacity(), **pages}), 0))
    assert (facts.blocks, facts.block_bytes, facts.physical_block_bytes) == (100, 512, 4096)
    assert (facts.transfer_blocks, facts.unmap_blocks) == (2048, 0)


def test_a_target_that_does_not_answer_is_an_error() -> None:
    lost = CommandFailed("gone", ENODEV)
    with pytest.raises(CommandFailed):
        asyncio.run(questions.examine(Answers({0x9E: capacity(), (0x12, 0): lost}), 0))


@pytest.mark.parametrize(("told", "asked"), [(0, 1), (3, 4), (100, 8)])
def test_attentions_are_heard_until_there_are_no_more(told: int, asked: int) -> None:
    """A target that never ends telling is not listened to for ever."""

    class Attentive(Answers):
        async def execute(self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"") -> memoryview:
            self.asked.append((lun, cdb))
            if len(self.asked) <= told:
                raise CommandFailed("attention", EIO, encode(Sense(Condition.POWER_ON_OCCURRED)))
            return memoryview(b"")

    target = Attentive()
    asyncio.run(questions.settle_attentions(target, 0))
    assert len(target.asked) == asked


def test_a_stranger_is_not_let_in() -> None:
    """R15: what is exposed to one storage processor, no other sees."""

    async def scenario() -> None:
        async with house({0: make_unit(1)}, portals=1) as at:
            stranger = replace(identity(), initiator="iqn.2026-11.example:sp4.t2")
            with pytest.raises(ProtocolError, match="does not let"):
                async with reached(at, who=stranger):
                    pass

    asyncio.run(scenario())
