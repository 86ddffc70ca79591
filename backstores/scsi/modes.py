"""Mode pages: what a host may read and change about a unit's behaviour (SPC-4 clause 7.5, SBC-3 clause 6.5).

A page exists in four versions: current, changeable (a mask), default and saved. Only a few bits can be
changed; a MODE SELECT that touches any other bit is refused as a whole.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.wire import Bits, Wire


class PageControl(enum.IntEnum):
    """Which version of a page MODE SENSE wants (SPC-4 table 151)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


ALL_PAGES: Final = 0x3F
ALL_SUBPAGES: Final = 0xFF


class PageHeader(Wire, size=2):
    """What every mode page without a subpage begins with."""

    saveable = Bits(byte=0, msb=7, width=1)
    subpage_format = Bits(byte=0, msb=6, width=1)
    code = Bits(byte=0, msb=5, width=6)
    page_length = Bits(byte=1, width=8)


class ErrorRecoveryPage(Wire, size=12):
    """Read-write error recovery (SBC-3 clause 6.5.7): devices below recover on their own; nothing can be set."""

    saveable = Bits(byte=0, msb=7, width=1)
    code = Bits(byte=0, msb=5, width=6, value=0x01)
    page_length = Bits(byte=1, width=8, value=10)
    automatic_write_reallocation = Bits(byte=2, msb=7, width=1, value=1)
    automatic_read_reallocation = Bits(byte=2, msb=6, width=1, value=1)


class CachingPage(Wire, size=20):
    """Caching (SBC-3 clause 6.5.5): without write cache every write is durable before it is acknowledged."""

    saveable = Bits(byte=0, msb=7, width=1)
    code = Bits(byte=0, msb=5, width=6, value=0x08)
    page_length = Bits(byte=1, width=8, value=18)
    write_cache = Bits(byte=2, msb=2, width=1)


class ControlPage(Wire, size=12):
    """Control (SPC-4 clause 7.5.8)."""

    saveable = Bits(byte=0, msb=7, width=1)
    code = Bits(byte=0, msb=5, width=6, value=0x0A)
    page_length = Bits(byte=1, width=8, value=10)
    descriptor_sense = Bits(byte=2, msb=2, width=1, doc="D_SENSE")
    write_protect = Bits(byte=4, msb=3, width=1, doc="SWP")
    busy_timeout = Bits(byte=8, width=16, value=0xFFFF, doc="unlimited")


@dataclass(frozen=True, slots=True)
class Page:
    """A mode page as a unit begins with it, and the mask of the bits that a host may change."""

    default: bytes
    changeable: bytes

    @property
    def code(self) -> int:
        """The page code."""
        return PageHeader.parse(self.default).code


def _page(wire: type[Wire], changeable: tuple[str, ...] = (), **defaults: int) -> Page:
    mask = {name: field.mask for name, field in wire.FIELDS.items() if name in changeable and isinstance(field, Bits)}
    # A mask keeps the header; the other fixed fields can't be changed and are zero in it.
    fixed = {name: 0 for name, field in wire.FIELDS.items() if field.value is not None}
    header = {"code": wire.FIELDS["code"].value, "page_length": wire.FIELDS["page_length"].value, "saveable": 1}
    return Page(wire.build(saveable=1, **defaults), wire.build(**{**fixed, **mask, **header}))


PAGES: Final[Mapping[int, Page]] = {
    page.code: page
    for page in (
        _page(ErrorRecoveryPage),
        _page(CachingPage, changeable=("write_cache",), write_cache=1),
        _page(ControlPage, changeable=("descriptor_sense", "write_protect")),
    )
}


class ModePages:
    """The pages of one unit. Changes are made on a ``copy`` and take effect when the unit adopts it."""

    def __init__(self, saved: Mapping[int, bytes] | None = None) -> None:
        self._saved = {code: page.default for code, page in PAGES.items()}
        # A store may hold pages of another version of this program: what does not fit is not taken.
        for code, page in (saved or {}).items():
            if code in PAGES and len(page) == len(PAGES[code].default):
                self._saved[code] = page
        self._current = dict(self._saved)

    def copy(self) -> ModePages:
        """Give an independent copy."""
        twin = ModePages(self._saved)
        twin._current = dict(self._current)
        return twin

    def reset(self) -> None:
        """Go back to the saved pages, as a reset does."""
        self._current = dict(self._saved)

    def differs(self, other: ModePages) -> bool:
        """Whether a host would see another current page."""
        return self._current != other._current

    @property
    def saved(self) -> dict[int, bytes]:
        """The saved pages that differ from the defaults."""
        return {code: page for code, page in self._saved.items() if page != PAGES[code].default}

    @property
    def write_cache(self) -> bool:
        """Whether writes may be acknowledged before they are durable (WCE)."""
        return bool(CachingPage.parse(self._current[0x08]).write_cache)

    @property
    def descriptor_sense(self) -> bool:
        """Whether sense data has the descriptor format (D_SENSE)."""
        return bool(ControlPage.parse(self._current[0x0A]).descriptor_sense)

    @property
    def write_protect(self) -> bool:
        """Whether the host itself has forbidden writes (SWP)."""
        return bool(ControlPage.parse(self._current[0x0A]).write_protect)

    def sense(self, control: PageControl, code: int) -> bytes:
        """Give one page, or all of them in ascending order.

        Raises:
            CheckCondition: there is no such page.
        """
        if code != ALL_PAGES and code not in PAGES:
            raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 5))
        versions = {
            PageControl.CURRENT: self._current,
            PageControl.CHANGEABLE: {known: page.changeable for known, page in PAGES.items()},
            PageControl.DEFAULT: {known: page.default for known, page in PAGES.items()},
            PageControl.SAVED: self._saved,
        }[control]
        return b"".join(versions[known] for known in sorted(PAGES) if code in (known, ALL_PAGES))

    def select(self, data: memoryview, save: bool, offset: int) -> None:
        """Take the pages of a MODE SELECT; ``offset`` is where they begin in the parameter list.

        Raises:
            CheckCondition: a page is unknown or cut short, or a bit that can't be changed differs.
        """
        wanted = dict(self._current)
        at = 0
        while at < len(data):
            if len(data) - at < PageHeader.SIZE:
                raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
            header = PageHeader.parse(data, at)
            page = None if header.subpage_format else PAGES.get(header.code)
            if page is None:
                raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(offset + at, 5, False))
            length = len(page.default)
            if header.page_length != length - PageHeader.SIZE:
                raise CheckCondition(
                    Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(offset + at + 1, 7, False)
                )
            if len(data) - at < length:
                raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
            wanted[header.code] = _merged(page, wanted[header.code], bytes(data[at : at + length]), offset + at)
            at += length
        self._current = wanted
        if save:
            self._saved = dict(wanted)


def _merged(page: Page, current: bytes, wanted: bytes, offset: int) -> bytes:
    result = bytearray(current)
    for position in range(PageHeader.SIZE, len(current)):
        mask = page.changeable[position]
        if (wanted[position] ^ current[position]) & ~mask:
            raise CheckCondition(
                Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(offset + position, None, False)
            )
        result[position] = current[position] & ~mask | wanted[position] & mask
    return bytes(result)
