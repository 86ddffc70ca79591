"""CHAP secrets on their way in: read from a file that nobody else can read (S2)."""

from __future__ import annotations

import os
import stat
from typing import Final

from backstores.errors import UsageError

LEAST_BYTES: Final = 12  # 96 bits (RFC 7143, 9.2.1)
MOST_BYTES: Final = 255


def read_secret(path: str) -> str:
    """Read a secret: the file's one line, without the line's end.

    Raises:
        UsageError: no such file, others may read it, or the secret is unfit. The secret is never in the message.
    """
    try:
        # O_NONBLOCK: a FIFO must not hold the appliance up
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"secret file {path} can't be read: {error.strerror}") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"secret file {path} is no regular file")
        if found.st_mode & 0o077:
            raise UsageError(
                f"secret file {path} has mode {stat.S_IMODE(found.st_mode):03o}, others can read it: chmod 600 {path}"
            )
        content = os.read(handle, MOST_BYTES + 3)
    finally:
        os.close(handle)
    try:
        text = content.decode("ascii").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError(f"the secret in {path} holds characters beyond ASCII") from None
    return check_secret(text, f"the secret in {path}")


def check_secret(text: str, what: str) -> str:
    """Refuse a secret that is too short, too long, or that can't be typed.

    Raises:
        UsageError: it is; ``what`` says which one, for the secret itself is never shown.
    """
    if not LEAST_BYTES <= len(text) <= MOST_BYTES:
        raise UsageError(f"{what} has {len(text)} bytes, it needs {LEAST_BYTES} to {MOST_BYTES}")
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{what} holds characters that are not printable ASCII")
    return text
