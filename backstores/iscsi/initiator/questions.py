"""What an initiator asks a target before it uses it: which units there are, who they are, how large, what they can.

Everything in an answer is checked before it is used (S3): a unit that claims a block size or a capacity which makes
no sense is refused here, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from backstores.errors import ProtocolError
from backstores.iscsi.initiator.outcome import CommandFailed
from backstores.scsi import cdb as formats
from backstores.scsi import inquiry, lun
from backstores.scsi.reports import Capacity16, LunListHeader
from backstores.wire import Buffer
from backstores.wwn import Wwn

BLOCK_SIZES: Final = (512, 4096)
LONGEST_PAGE_BYTES: Final = 4096
FIRST_LUNS_BYTES: Final = 4096
MOST_LUNS_BYTES: Final = LunListHeader.SIZE + lun.LIMIT * lun.LunField.SIZE
MOST_BLOCKS: Final = 1 << 53
NAA_FORMATS: Final = {8: "5", 16: "6"}
SUPPORTED_PAGES, IDENTIFICATION, BLOCK_LIMITS = 0x00, 0x83, 0xB0
DEFAULT_TRANSFER_BYTES: Final = 1 << 20  # where a target does not tell what one command may move
DEFAULT_WRITE_SAME_BYTES: Final = 16 << 20


class AnswerError(ProtocolError):
    """An answer that makes no sense."""


class Executes(Protocol):
    """A session, or several with one target."""

    async def execute(self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"") -> memoryview:
        """Run one command at a LUN and give what it sends. Raises CommandFailed."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What is known of a unit. Limits are in blocks, and what a unit can't do has 0."""

    blocks: int
    block_bytes: int
    physical_block_bytes: int
    transfer_blocks: int
    unmap_blocks: int
    unmap_descriptors: int
    write_same_blocks: int

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.blocks * self.block_bytes


async def list_luns(target: Executes) -> list[int]:
    """Give the LUNs that a target shows us, by REPORT LUNS; those that can't be addressed by one level are left out."""
    room = FIRST_LUNS_BYTES
    while True:
        cdb = formats.ReportLuns.build(allocation_bytes=room)
        answer = await target.execute(0, cdb, room)
        length = LunListHeader.parse(answer).length + LunListHeader.SIZE
        if length <= room or room == MOST_LUNS_BYTES:
            break
        room = min(length, MOST_LUNS_BYTES)
    fields = bytes(answer[LunListHeader.SIZE : length])
    size = lun.LunField.SIZE
    found = [lun.decode(int.from_bytes(fields[at : at + size])) for at in range(0, len(fields) // size * size, size)]
    return sorted({number for number in found if number is not None})


async def identify(target: Executes, number: int) -> Wwn | None:
    """Give the name of a unit from page 83: NAA 6 before NAA 5; None: it has no such name."""
    found = [
        Wwn(bytes(value).hex())
        for header, value in _designators(await _page(target, number, IDENTIFICATION))
        if header.association == inquiry.OF_UNIT and header.designator_type == inquiry.NAA
    ]
    good = [wwn for wwn in found if NAA_FORMATS.get(len(wwn) // 2) == wwn[0]]
    return max(good, key=len, default=None)


def _designators(page: Buffer) -> Iterator[tuple[inquiry.Designator, Buffer]]:
    at = 0
    while at < len(page):
        header = inquiry.Designator.parse(page, at)
        at += inquiry.Designator.SIZE
        if at + header.length > len(page):
            raise AnswerError(f"a designator of {header.length} bytes at byte {at} of {len(page)}")
        yield header, page[at : at + header.length]
        at += header.length


async def _page(target: Executes, number: int, code: int) -> memoryview:
    """Give a vital product data page behind its header."""
    cdb = formats.Inquiry.build(vital_product_data=1, page=code, allocation_bytes=LONGEST_PAGE_BYTES)
    answer = await target.execute(number, cdb, LONGEST_PAGE_BYTES)
    header = inquiry.PageHeader.parse(answer)
    body = answer[inquiry.PageHeader.SIZE :][: header.length]
    if header.code != code or len(body) < header.length:
        raise AnswerError(f"page {code:#04x} is page {header.code:#04x}, or {len(body)} bytes of {header.length}")
    return body


async def examine(target: Executes, number: int) -> UnitFacts:
    """Ask a unit for its capacity and its limits.

    Raises:
        CommandFailed: it does not answer.
        ProtocolError: its answers make no sense.
    """
    answer = await target.execute(
        number, formats.ReadCapacity16.build(allocation_bytes=Capacity16.SIZE), Capacity16.SIZE
    )
    capacity = Capacity16.parse(answer)
    blocks, block_bytes = capacity.last_lba + 1, capacity.block_bytes
    if block_bytes not in BLOCK_SIZES or blocks > MOST_BLOCKS:
        raise AnswerError(f"a capacity of {blocks} blocks of {block_bytes} bytes")
    limits = await _block_limits(target, number)
    return UnitFacts(
        blocks=blocks,
        block_bytes=block_bytes,
        physical_block_bytes=block_bytes << capacity.physical_exponent,
        transfer_blocks=limits.transfer or DEFAULT_TRANSFER_BYTES // block_bytes,
        unmap_blocks=limits.unmap_blocks if capacity.provisioned and capacity.reads_zeros else 0,
        unmap_descriptors=limits.unmap_descriptors,
        write_same_blocks=limits.write_same_blocks or DEFAULT_WRITE_SAME_BYTES // block_bytes,
    )


async def _block_limits(target: Executes, number: int) -> inquiry.BlockLimits:
    """Give the block limits page, or one that knows no limits: not every target has it."""
    try:
        pages = bytes(await _page(target, number, SUPPORTED_PAGES))
        body = await _page(target, number, BLOCK_LIMITS) if BLOCK_LIMITS in pages else b""
    except CommandFailed as error:
        if not error.sense:
            raise
        body = b""
    return inquiry.BlockLimits(bytes(body).ljust(inquiry.BlockLimits.SIZE, b"\0")[: inquiry.BlockLimits.SIZE])


async def settle_attentions(target: Executes, number: int, most: int = 8) -> None:
    """Let a unit tell what has happened to it since we were there, by TEST UNIT READY.

    Raises:
        CommandFailed: it is not ready.
    """
    for _ in range(most):
        try:
            await target.execute(number, formats.TestUnitReady.build())
            return
        except CommandFailed as error:
            if not error.attention:
                raise
