"""A virtual machine under test: QEMU, and a person at its serial console."""

from __future__ import annotations

import codecs
import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from images.machine import Machine

ESCAPES: Final = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")
SHOWN: Final = 4000


class Console:
    """The serial console of a machine that runs. ``text``: what has been shown and not been waited for yet."""

    def __init__(self, machine: Machine, log: Path) -> None:
        command = [*machine.command(), "-serial", "stdio"]
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""

    def expect(self, pattern: str, deadline_s: float) -> str:
        """Wait until a pattern is shown; give what was shown up to its end."""
        until = time.monotonic() + deadline_s
        while (found := re.search(pattern, self.text)) is None:
            self._read(until - time.monotonic(), pattern)
        shown, self.text = self.text[: found.end()], self.text[found.end() :]
        return shown

    def type(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\r".encode())

    def say(self, line: str, prompt: str, deadline_s: float) -> str:
        """Type a line at a prompt, and give what is shown until the next one."""
        self.type(line)
        return self.expect(prompt, deadline_s)

    def wait_for_end(self, deadline_s: float) -> None:
        """Wait until the machine is off."""
        until = time.monotonic() + deadline_s
        while self._read(until - time.monotonic(), "the end"):
            pass
        assert self.process.wait(30) == 0

    def close(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _read(self, left_s: float, awaited: str) -> bool:
        """Take in what is shown next; False: there is no more."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(left_s, 0)):
                raise AssertionError(f"{awaited!r} was not shown in time; shown was:\n{self.text[-SHOWN:]}")
        raw = os.read(self.process.stdout.fileno(), 1 << 16)
        self._log.write(raw)
        self._log.flush()
        # Over all that waits: a sequence may have come in two pieces.
        self.text = ESCAPES.sub("", self.text + self._decoder.decode(raw)).replace("\r", "")
        if not raw and awaited != "the end":
            raise AssertionError(f"the machine went off before {awaited!r}; shown was:\n{self.text[-SHOWN:]}")
        return bool(raw)


@contextmanager
def running(machine: Machine, log: Path) -> Iterator[Console]:
    """Run a machine while the context lasts."""
    console = Console(machine, log)
    try:
        yield console
    finally:
        console.close()
