"""What people type, turned into values.

A ``Kind`` is one sort of value: how its text is read, what it takes (for error lines and help), and
what completes it. Every parser raises UsageError with the text it refuses; none of them looks at
the state of the appliance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from backstores.alu.url import is_url, parse_url
from backstores.errors import UsageError

LARGEST_BYTES: Final = (1 << 63) - 1
PART_FORM: Final = re.compile(r"(link|fabric|port|sp|blade|alu):[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?", re.ASCII)
LARGEST_LUN: Final = 255  # the single-level addressing that every host knows (SAM-5, 4.7.7.1)
NAME_LENGTH: Final = 63
SHOWN_LENGTH: Final = 60
BLOCK_SIZES: Final = ("512", "4096")
ISCSI_NAME_BYTES: Final = 223  # RFC 7143, 4.2.7.1

UNITS: Final = "KMGTPE"
_SIZE = re.compile(rf"(\d{{1,19}})(?:\.(\d{{1,9}}))?(?:([{UNITS}])(?:iB)?)?", re.IGNORECASE | re.ASCII)
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LENGTH - 1}}}")
_YES_NO: Final = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}
_ISCSI_NAMES: Final = (
    re.compile(r"iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9][a-z0-9.-]*(:[a-z0-9.:-]+)?", re.ASCII),
    re.compile(r"eui\.[0-9a-f]{16}"),
    re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})"),
)
_PATTERN = re.compile(r"[a-z0-9.:*?-]+")


def shown(text: str) -> str:
    """Quote a value for an error line: no control character of it survives, and no more than a line."""
    return repr(text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 3] + "...")


def parse_size(text: str) -> int:
    """Read a size in bytes: ``4096``, ``64K``, ``1.5T``, ``10GiB``; the units are powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{shown(text)} is no size: a number with K, M, G, T, P or E behind it, such as 512M or 10G")
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scale = 1 << 10 * (UNITS.index(unit.upper()) + 1) if unit else 1
    parts: int = 10 ** len(fraction)
    length_bytes, rest = divmod(int(whole + fraction) * scale, parts)
    if rest:
        raise UsageError(f"{text} is not a whole number of bytes")
    if not 1 <= length_bytes <= LARGEST_BYTES:
        raise UsageError(f"{text} is outside 1 byte to {LARGEST_BYTES} bytes (just below 8 EiB)")
    return length_bytes


def exact_size(length_bytes: int) -> str:
    """Give a size as ``parse_size`` reads it back: in the largest unit that loses nothing."""
    for power in range(len(UNITS), 0, -1):
        whole, rest = divmod(length_bytes, 1024**power)
        if whole and not rest:
            return f"{whole}{UNITS[power - 1]}"
    return str(length_bytes)


def human_size(length_bytes: int) -> str:
    """Give a size for people, rounded down to two decimals: ``19.99 GiB``."""
    power = max(0, (length_bytes.bit_length() - 1) // 10)
    if power == 0:
        return f"{length_bytes} bytes"
    hundredths = length_bytes * 100 // 1024**power
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + f" {UNITS[power - 1]}iB"


def parse_yes_no(text: str) -> bool:
    """Read a switch."""
    try:
        return _YES_NO[text.lower()]
    except KeyError:
        raise UsageError(f"{shown(text)} is neither yes nor no") from None


def parse_name(text: str) -> str:
    """Read the name of a thing: it must be fit for a path."""
    if _NAME.fullmatch(text) is None:
        raise UsageError(
            f"{shown(text)} is no name: 1 to {NAME_LENGTH} letters, digits, '-', '_' or '.'"
            " with a letter or digit in front"
        )
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """Read names with commas between them, no name twice."""
    names = tuple(parse_name(part.strip()) for part in text.split(","))
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(f"{name} stands more than once in {shown(text)}")
    return names


def parse_path(text: str) -> str:
    """Read the path of a file or device. The shell has made it absolute: only it knows its own folder."""
    if not text.startswith("/") or "\0" in text:
        raise UsageError(f"{shown(text)} is no absolute path")
    if len(text.encode()) > 4095:
        raise UsageError(f"{shown(text)} has {len(text.encode())} bytes, more than 4095")
    return str(PurePosixPath(text))


def is_remote(text: str) -> bool:
    """Tell the URL of a unit of an iSCSI target from a path."""
    return is_url(text)


def parse_location(text: str) -> str:
    """Read where an ALU is: the path of a file or device, or the URL of a unit of an iSCSI target."""
    if not is_remote(text):
        return parse_path(text)
    parse_url(text)
    return text


def parse_count(text: str) -> int:
    """Read a small number of things."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0):
        raise UsageError(f"{shown(text)} is not a number from 1 to 9999")
    return int(text)


def parse_lun(text: str) -> int:
    """Read a logical unit number."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= LARGEST_LUN):
        raise UsageError(f"{shown(text)} is not a number from 0 to {LARGEST_LUN}")
    return int(text)


def parse_iscsi_pattern(text: str) -> str:
    """Read an iSCSI name (RFC 7143, 4.2.7), or a pattern for some; names are kept in lower case (RFC 3722)."""
    name = text.lower()
    if len(name.encode()) > ISCSI_NAME_BYTES:
        raise UsageError(f"{shown(text)} has {len(name.encode())} bytes, more than {ISCSI_NAME_BYTES}")
    literal = re.split(r"[*?]", name)[0]
    if literal != name and _PATTERN.fullmatch(name):
        if any(kind.startswith(literal[:4]) for kind in ("iqn.", "eui.", "naa.")):
            return name
    elif any(pattern.fullmatch(name) for pattern in _ISCSI_NAMES):
        return name
    raise UsageError(
        f"{shown(text)} is no iSCSI name: iqn.YYYY-MM.reversed.domain:name, eui. with 16 or naa. with 16 or 32"
        " hexadecimal digits; * and ? stand for any text and any character"
    )


def parse_user(text: str) -> str:
    """Read a CHAP user name: what goes into an iSCSI URL as it is."""
    if not 1 <= len(text) <= 255 or not re.fullmatch(r"[A-Za-z0-9._:+-]+", text):
        raise UsageError(f"{shown(text)} is no CHAP user: 1 to 255 letters, digits, '.', '_', ':', '+' or '-'")
    return text


def parse_text(text: str) -> str:
    """Take a text as it is."""
    return text


def parse_block_bytes(text: str) -> int:
    """Read the size of a logical block."""
    if text not in BLOCK_SIZES:
        raise UsageError(f"{shown(text)} is none of {', '.join(BLOCK_SIZES)}")
    return int(text)


def _choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise UsageError(f"{shown(text)} is none of {', '.join(choices)}")
        return text

    return parse


def parse_part(text: str) -> str:
    """Read the name of a part of the system.

    Raises:
        UsageError: it can be none.
    """
    if not PART_FORM.fullmatch(text):
        raise UsageError(f"{shown(text)} is no part; say KIND:NAME, with link, fabric, port, sp, blade or alu for KIND")
    return text


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of value. ``folder``: the names in that folder complete it."""

    label: str
    takes: str
    parse: Callable[[str], object]
    choices: tuple[str, ...] = ()
    folder: str = ""
    many: bool = False


LAYOUT_NAMES: Final = ("linear", "stripe", "mirror", "stripe-mirror", "concat", "legacy", "direct")

SIZE: Final = Kind("SIZE", "bytes, or a number with K, M, G, T, P or E: 10G", parse_size)
YES_NO: Final = Kind("yes|no", "yes or no", parse_yes_no, choices=("yes", "no"))
NAME: Final = Kind("NAME", "letters, digits, '-', '_', '.'", parse_name)
PATH: Final = Kind("PATH", "a file or a block device", parse_path)
LOCATION: Final = Kind(
    "PATH", "a file, a block device, or iscsi://[USER@]HOST[:PORT]/TARGET/LUN[?secret-file=PATH]", parse_location
)
COUNT: Final = Kind("NUMBER", "a number from 1", parse_count)
LUN: Final = Kind("LUN", f"a number from 0 to {LARGEST_LUN}", parse_lun)
IQN: Final = Kind("IQN", "an iSCSI name; * and ? are wildcards", parse_iscsi_pattern)
USER: Final = Kind("USER", "a CHAP user name", parse_user)
DOCUMENT: Final = Kind("FILE", "a file as `tiergate export` writes it, or - for standard input", parse_text)
LAYOUT: Final = Kind("LAYOUT", ", ".join(LAYOUT_NAMES), _choice(LAYOUT_NAMES), choices=LAYOUT_NAMES)
BLOCK_BYTES: Final = Kind("512|4096", "512 or 4096", parse_block_bytes, choices=BLOCK_SIZES)
ALUS: Final = Kind("ALU,...", "names of ALUs, commas between them", parse_names, folder="/alus", many=True)
POOL: Final = Kind("POOL", "the name of a pool", parse_name, folder="/pools")
PART: Final = Kind("PART", "KIND:NAME, such as sp:sp1 or link:sp1/int1", parse_part)
HOST: Final = Kind("HOST", "the name of a host", parse_name, folder="/hosts")
