"""What lies on an ALU that is not ours, as the system's own tool sees it (R2).

``blkid`` knows more kinds than the table in ``backstores.metadata.signatures``, which is for where it is not
installed. It reads what somebody may have written to deceive, so only plain words of its answer are passed on,
and an answer that does not come holds nothing up: then the table alone counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

Recognize = Callable[[str], Awaitable[Sequence[str]]]
"""Names what is on the ALU at a path; an empty answer says nothing."""

TIMEOUT_S: Final = 10.0
GRACE_S: Final = 1.0  # for a killed one to go
FOUND, NOTHING, SEVERAL = 0, 2, 8  # how blkid ends: see blkid(8)
USAGES: Final = {"filesystem": " file system", "raid": " (part of an array or volume group)", "crypto": " (encrypted)"}
TABLES: Final = {"dos": "MBR", "gpt": "GPT"}

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.+-]{1,32}")
_SEARCH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


async def recognize_nothing(_path: str) -> Sequence[str]:
    """Know no more than the table of signatures."""
    return ()


async def ask_blkid(path: str, program: str | None = None, timeout_s: float = TIMEOUT_S) -> Sequence[str]:
    """Have ``blkid`` look at an ALU by itself, past its cache; an answer that makes no sense is logged."""
    program = program or shutil.which("blkid", path=_SEARCH)
    if program is None:
        return ()
    words = (program, "-p", "-o", "export", "-s", "TYPE", "-s", "USAGE", "-s", "PTTYPE", "--", path)
    devnull, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=devnull, stdout=pipe, stderr=devnull)
    except OSError as error:
        log.warning("what is on alu %s can't be looked up: %s: %s", path, program, error.strerror)
        return ()
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        with suppress(TimeoutError):  # it may hang in the disk: then it is left behind
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        log.warning("what is on alu %s can't be looked up: %s took more than %s s", path, program, timeout_s)
        return ()
    if process.returncode not in (FOUND, NOTHING, SEVERAL):
        log.warning("what is on alu %s can't be looked up: %s ended with %s", path, program, process.returncode)
    return ("several things at once",) if process.returncode == SEVERAL else names(output)


def names(output: bytes) -> Sequence[str]:
    """Put the answer of ``blkid -o export`` into words."""
    pairs = (line.partition("=") for line in output.decode("ascii", "replace").splitlines())
    values = {key: value for key, _, value in pairs if _PLAIN.fullmatch(value)}
    found = []
    if "TYPE" in values:
        found.append(values["TYPE"] + USAGES.get(values.get("USAGE", ""), ""))
    if "PTTYPE" in values:
        found.append(f"{TABLES.get(values['PTTYPE'], values['PTTYPE'])} partition table")
    return tuple(found)
