"""Formats on the wire and on disk, declared once as fields.

A ``Wire`` class lists the fields of a format where the standard puts them (byte, most significant
bit, width). Parsing, building, the size and the table in the documentation all derive from that one
declaration. Bits that no field names are reserved: built as zero, not looked at.

    class Read10(Wire, size=10):
        opcode = Bits(byte=0, msb=7, width=8, value=0x28)
        fua = Bits(byte=1, msb=3, width=1)
        lba = Bits(byte=2, msb=7, width=32)
        blocks = Bits(byte=7, msb=7, width=16)

    Read10.parse(cdb).lba
    Read10.build(lba=7, blocks=8)

What is wrong with a declaration (overlap, past the end) shows at import; a value that does not fit
its field raises when it is built. A subclass of a structure has its fields, too, and may declare
them anew: that is how formats share a header. Multi-byte fields are big-endian unless the class says
``order="little"``, which takes whole bytes only.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, ClassVar, Literal, Self, overload

from backstores.errors import ProtocolError

Buffer = bytes | bytearray | memoryview


class WireError(ProtocolError):
    """Bytes that are too short, or hold another value where the format fixes one."""


class Bits:
    """An unsigned number: ``width`` bits that begin at bit ``msb`` (7 is the highest) of ``byte``."""

    def __init__(self, *, byte: int, width: int, msb: int = 7, value: int | None = None, doc: str = "") -> None:
        last_bit = byte * 8 + (7 - msb) + width - 1
        self.first_bit = byte * 8 + (7 - msb)
        self.width = width
        self.value = value
        self.doc = doc
        self.byte = byte
        self.end = last_bit // 8 + 1
        self.shift = 7 - last_bit % 8
        self.mask = (1 << width) - 1
        self.name = "?"
        self.order: Literal["big", "little"] = "big"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Wire, owner: type) -> int: ...
    def __get__(self, instance: Wire | None, owner: type) -> Self | int:
        if instance is None:
            return self
        return self.read(instance.raw)

    def read(self, raw: Buffer) -> int:
        """Take the number out of the bytes of a whole structure."""
        return int.from_bytes(raw[self.byte : self.end], self.order) >> self.shift & self.mask

    def write(self, raw: bytearray, number: int) -> None:
        """Put a number into zeroed bytes of a whole structure.

        Raises:
            ValueError: it does not fit the field.
        """
        if not 0 <= number <= self.mask:
            raise ValueError(f"{self.name} {number} does not fit {self.width} bits (0..{self.mask})")
        size = self.end - self.byte
        merged = int.from_bytes(raw[self.byte : self.end], self.order) | number << self.shift
        raw[self.byte : self.end] = merged.to_bytes(size, self.order)


class Bytes:
    """A run of bytes, shorter values padded with ``pad`` at the end."""

    def __init__(
        self, *, byte: int, length: int, pad: bytes = b"\0", value: bytes | None = None, doc: str = ""
    ) -> None:
        self.first_bit = byte * 8
        self.width = length * 8
        self.byte = byte
        self.end = byte + length
        self.pad = pad
        self.value = value
        self.doc = doc
        self.name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Wire, owner: type) -> bytes: ...
    def __get__(self, instance: Wire | None, owner: type) -> Self | bytes:
        if instance is None:
            return self
        return instance.raw[self.byte : self.end]

    def read(self, raw: Buffer) -> bytes:
        """Take the bytes out of the bytes of a whole structure."""
        return bytes(raw[self.byte : self.end])

    def write(self, raw: bytearray, text: bytes) -> None:
        """Put bytes into a whole structure.

        Raises:
            ValueError: there are more of them than the field holds.
        """
        length = self.end - self.byte
        if len(text) > length:
            raise ValueError(f"{self.name} has {len(text)} bytes, its field {length}")
        raw[self.byte : self.end] = text.ljust(length, self.pad)


class Wire:
    """A fixed-size structure; subclass it with ``size=`` and fields. An instance is one parsed copy."""

    __slots__ = ("raw",)
    SIZE: ClassVar[int]
    ORDER: ClassVar[Literal["big", "little"]]
    FIELDS: ClassVar[dict[str, Bits | Bytes]]

    def __init_subclass__(cls, size: int, order: Literal["big", "little"] = "big", **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.SIZE = size
        cls.ORDER = order
        declared = {k: v for base in reversed(cls.__mro__) for k, v in vars(base).items()}
        cls.FIELDS = {k: v for k, v in declared.items() if isinstance(v, Bits | Bytes)}
        taken: dict[int, str] = {}
        for name, field in cls.FIELDS.items():
            if isinstance(field, Bits):
                field.order = order
                if order == "little" and (field.shift or field.first_bit % 8):
                    raise TypeError(f"{cls.__name__}.{name}: little-endian fields take whole bytes")
            if field.end > size:
                raise TypeError(f"{cls.__name__}.{name} ends at byte {field.end}, past the size {size}")
            for bit in range(field.first_bit, field.first_bit + field.width):
                if bit in taken:
                    raise TypeError(f"{cls.__name__}.{name} overlaps {taken[bit]}")
                taken[bit] = name

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def parse(cls, buffer: Buffer, offset: int = 0) -> Self:
        """Read one structure out of ``buffer``, which may hold more.

        Raises:
            WireError: too few bytes, or a fixed field holds another value.
        """
        raw = bytes(buffer[offset : offset + cls.SIZE])
        if len(raw) < cls.SIZE:
            raise WireError(f"{cls.__name__} takes {cls.SIZE} bytes, not {len(raw)}")
        for name, field in cls.FIELDS.items():
            if field.value is not None and field.read(raw) != field.value:
                raise WireError(f"{cls.__name__}.{name} is {field.read(raw)!r}, not {field.value!r}")
        return cls(raw)

    @classmethod
    def build(cls, **values: Any) -> bytes:
        """Make the bytes; fields not named are zero, or what the format fixes.

        Raises:
            ValueError: a value does not fit its field.
            TypeError: no such field.
        """
        unknown = values.keys() - cls.FIELDS.keys()
        if unknown:
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        raw = bytearray(cls.SIZE)
        for name, field in cls.FIELDS.items():
            value = values.get(name, field.value)
            if value is not None:
                field.write(raw, value)
        return bytes(raw)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Wire) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash((type(self), self.raw))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={field.read(self.raw)!r}" for name, field in self.FIELDS.items())
        return f"{type(self).__name__}({shown})"

    @classmethod
    def table(cls) -> str:
        """Give the format as a Markdown table, reserved ranges included."""
        rows = ["| byte | bits | field | meaning |", "|---|---|---|---|"]
        ordered = sorted(cls.FIELDS.values(), key=lambda f: f.first_bit)
        at = 0
        for field in ordered:
            if field.first_bit > at:
                rows.append(_row(at, field.first_bit, "reserved", "zero"))
            fixed = (
                ""
                if field.value is None
                else f"`{field.value!r}` "
                if isinstance(field, Bytes)
                else f"{field.value:#x} "
            )
            rows.append(_row(field.first_bit, field.first_bit + field.width, f"`{field.name}`", fixed + field.doc))
            at = field.first_bit + field.width
        if at < cls.SIZE * 8:
            rows.append(_row(at, cls.SIZE * 8, "reserved", "zero"))
        return "\n".join(rows)


def packer(cls: type[Wire]) -> Struct:
    """Derive a ``Struct`` for a whole format: one number for each field, in order; a hot path's codec.

    Raises:
        TypeError: a field is not a whole number of 1, 2, 4 or 8 bytes.
    """
    codes = {8: "B", 16: "H", 32: "I", 64: "Q"}
    text, at = "<" if cls.ORDER == "little" else ">", 0
    for field in sorted(cls.FIELDS.values(), key=lambda f: f.first_bit):
        if not isinstance(field, Bits) or field.first_bit % 8 or field.width not in codes:
            raise TypeError(f"{cls.__name__}.{field.name} has no code in a Struct")
        text += "x" * (field.byte - at) + codes[field.width]
        at = field.end
    return Struct(text + "x" * (cls.SIZE - at))


def _row(first: int, end: int, name: str, meaning: str) -> str:
    if first % 8 == 0 and end % 8 == 0:
        last = end // 8 - 1
        where = str(first // 8) if first // 8 == last else f"{first // 8}–{last}"
        bits = ""
    else:
        where = str(first // 8) if first // 8 == (end - 1) // 8 else f"{first // 8}–{(end - 1) // 8}"
        bits = f"{7 - first % 8}–{7 - (end - 1) % 8}" if end - first > 1 else str(7 - first % 8)
    return f"| {where} | {bits} | {name} | {meaning.strip()} |"
