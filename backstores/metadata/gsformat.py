"""What each member of the GS set keeps in its GS boot region, as declared formats (R4, R5).

    pointer sectors        two; the newer good one says where the rest lies, and vouches for it
    active lists A, B      who is a member, and the roster of all ALUs
    reserved regions A, B  the metadata of legacy ALUs, which have none on themselves

``layout`` says where they lie. An *image* is what pointer, list and reserved region say together. It
is the same on all members but for the pointer's address and ALU. Bodies are MessagePack, decoded
strictly: an entry that this version does not know makes the body invalid, never a guess.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from backstores.errors import CorruptError, UsageError
from backstores.metadata.layout import GS_LISTS, GS_RESERVED
from backstores.metadata.sector import COUNTER_LIMIT, Sector
from backstores.wire import Bits, Bytes
from backstores.wwn import Wwn, parse_wwn

MOST_MEMBERS: Final = 6
MOST_PATH_CHARACTERS: Final = 255  # of the hint; a longer path is cut in front


class GsPointer(Sector, size=512, order="little"):
    """A pointer sector of the GS boot region. Generation, time stamp and epoch are the image's."""

    magic = Bytes(byte=0, length=8, value=b"TGGSBOOT")
    list_address = Bits(byte=64, width=64, doc="first byte of the active list")
    list_bytes = Bits(byte=72, width=32, doc="length of the active list")
    list_crc = Bits(byte=76, width=32, doc="CRC32C of the active list")
    reserved_address = Bits(byte=80, width=64, doc="first byte of the reserved region")
    reserved_bytes = Bits(byte=88, width=32, doc="length of what the reserved region holds")
    reserved_crc = Bits(byte=92, width=32, doc="CRC32C of what the reserved region holds")


class Usage(enum.StrEnum):
    """How an ALU in the roster is used."""

    OWNED = "owned"
    LEGACY = "legacy"  # its metadata lies in the reserved region (R5)
    DETACHED = "detached"  # it was let go: remembered, so that no older copy of it wins when it returns


class RosterEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """An ALU of the appliance, as last seen: a copy made before that is *stale*, and must not win.

    ``epoch`` is the one it was last fenced with, ``generation`` that of its objects when this was written last: at
    the start, at a clean stop, when it was detached. ``path`` is a hint for people: where it was attached.
    """

    alu: Wwn
    path: str
    usage: Usage = Usage.OWNED
    epoch: int = 0
    generation: int = 0


class ActiveList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an active list. ``before``: the members until then, while their change is under way."""

    members: tuple[Wwn, ...]
    before: tuple[Wwn, ...]
    roster: tuple[RosterEntry, ...]


class LegacyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """The metadata of one legacy ALU, as whoever manages those encodes it."""

    alu: Wwn
    body: bytes


class ReservedRegion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a reserved region."""

    records: tuple[LegacyRecord, ...]


@dataclass(frozen=True, slots=True)
class GsImage:
    """What the members hold in common. Of two images the one of the higher ``order`` is the newer (M2)."""

    epoch: int
    generation: int
    time_ns: int
    members: tuple[Wwn, ...]
    before: tuple[Wwn, ...] = ()
    roster: tuple[RosterEntry, ...] = ()
    legacy: tuple[LegacyRecord, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """Its place among all images: first the writer's epoch, then the generation."""
        return self.epoch, self.generation

    def entry(self, alu: Wwn) -> RosterEntry | None:
        """Give what the roster says of an ALU."""
        return next((entry for entry in self.roster if entry.alu == alu), None)


Body = TypeVar("Body", ActiveList, ReservedRegion)

_encoder: Final = msgspec.msgpack.Encoder()


def list_body(image: GsImage) -> bytes:
    """Encode the active list of an image.

    Raises:
        UsageError: there are more ALUs than it has room for.
    """
    body = ActiveList(image.members, image.before, image.roster)
    return _fitting(body, GS_LISTS[0].length_bytes, f"{len(image.roster)} alus")


def reserved_body(image: GsImage) -> bytes:
    """Encode the reserved region of an image.

    Raises:
        UsageError: the legacy ALUs have more metadata than there is room for.
    """
    return _fitting(ReservedRegion(image.legacy), GS_RESERVED[0].length_bytes, f"{len(image.legacy)} legacy alus")


def check_room(image: GsImage) -> None:
    """Make sure that an image fits, before any of it is written.

    Raises:
        UsageError: it does not.
    """
    list_body(image)
    reserved_body(image)


def decode(raw: bytes, kind: type[Body]) -> Body:
    """Read a body, and check what it says.

    Raises:
        CorruptError: it does not decode, or no writer of ours would have stored that.
    """
    try:
        body = msgspec.msgpack.decode(raw, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's own errors, and those of text, are ValueErrors
        raise CorruptError(f"the body does not decode ({type(error).__name__})") from error
    if isinstance(body, ActiveList):
        _check_names(body.members, least=1, most=MOST_MEMBERS)
        _check_names(body.before, least=0, most=MOST_MEMBERS)
        _check_names([entry.alu for entry in body.roster])
        for entry in body.roster:
            if not (0 <= entry.epoch <= COUNTER_LIMIT and 0 <= entry.generation <= COUNTER_LIMIT):
                raise CorruptError(f"an epoch or generation in the roster is not between 0 and {COUNTER_LIMIT}")
            if len(entry.path) > MOST_PATH_CHARACTERS or not entry.path.isprintable():
                raise CorruptError(f"a path in the roster is not up to {MOST_PATH_CHARACTERS} printable characters")
    else:
        _check_names([record.alu for record in body.records])
    return body


def path_hint(path: str) -> str:
    """Make of a path what the roster keeps of it."""
    return "".join(c if c.isprintable() else "?" for c in path)[-MOST_PATH_CHARACTERS:]


def _check_names(names: tuple[Wwn, ...] | list[Wwn], least: int = 0, most: int | None = None) -> None:
    if not least <= len(names) <= (len(names) if most is None else most):
        raise CorruptError(f"{len(names)} members, there can be {least} to {most}")
    if len(set(names)) < len(names):
        raise CorruptError("an alu is named twice")
    for name in names:
        try:
            sound = len(name) == 16 and parse_wwn(name) == name
        except UsageError:
            sound = False
        if not sound:
            raise CorruptError("an alu has no NAA 5 name")


def _fitting(body: ActiveList | ReservedRegion, room: int, what: str) -> bytes:
    raw = _encoder.encode(body)
    if len(raw) > room:
        raise UsageError(f"what the GS set keeps of {what} takes {len(raw)} bytes, it has room for {room}: detach some")
    return raw
