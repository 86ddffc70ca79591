"""A real appliance in a process of its own, and the real tools that talk to it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TIERGATE = str(Path(sys.executable).with_name("tiergate"))
READY_S = 30 * int(os.environ.get("TIERGATE_SLOWNESS", 1))  # which an emulated guest says
TOOLS_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"  # where a user's own path ends too early
INITIATOR = "iqn.2026-11.example.tiergate:test"


def need(*tools: str) -> pytest.MarkDecorator:
    """Skip where a tool is not installed; `make test` as root installs all of them."""
    missing = [tool for tool in tools if shutil.which(tool, path=TOOLS_PATH) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def free_port() -> int:
    """Find a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Appliance:
    """``tiergate serve`` in a folder; it may be killed and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    portals: Sequence[str] = ()  # in place of the one on loopback
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.folder / "state"

    @property
    def log(self) -> str:
        """Everything it has logged."""
        return (self.folder / "log").read_text()

    def where(self) -> list[str]:
        """Say where it is to be reached."""
        return [f"--portal={portal}" for portal in self.portals or [f"127.0.0.1:{self.port}"]]

    def start(self, *options: str) -> None:
        """Start it, and wait until it says that it is ready."""
        line = [TIERGATE, "serve", "--state", str(self.state), *self.where(), *options]
        with (self.folder / "log").open("a") as log:
            # No buffer of ours: select would not see a line that waits in it.
            self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, bufsize=0)
        assert self.process.stdout is not None
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], READY_S)
            text = self.process.stdout.readline().decode() if ready else ""
            if text.startswith("ready"):
                return
            if not text:
                self.process.kill()
                raise AssertionError(f"the appliance did not start:\n{self.log}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as a person would, and give its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        status = process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
        return status

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a one-line command."""
        line = [TIERGATE, "--state", str(self.state), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def say(self, *words: str) -> Any:
        """Type a one-line command that must succeed; give its result."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def make_volume(self, name: str = "v", size: str = "256M", layout: str = "stripe-mirror", alus: int = 4) -> str:
        """Attach files, make a volume on them, let anybody see it; give its URL."""
        self.show_volume(name, size, layout, alus)
        return self.url(name)

    def show_volume(
        self,
        name: str,
        size: str,
        layout: str = "stripe-mirror",
        alus: int = 4,
        *,
        host: str = "any",
        iqn: str = "*",
    ) -> None:
        """Attach files, make a volume on them, and let a host see it."""
        names = [f"{name}-a{number}" for number in range(alus)]
        for alu in names:
            self.say("/alus", "attach", f"path={self.folder / alu}.img", "size=512M", f"name={alu}")
        self.say("/volumes", "create", f"name={name}", f"size={size}", f"layout={layout}", f"alus={','.join(names)}")
        if host not in [known["name"] for known in self.say("/hosts", "list")]:
            self.say("/hosts", "create", f"name={host}", f"iqn={iqn}")
        self.say(f"/volumes/{name}", "expose", f"host={host}")

    def url(self, volume: str = "v") -> str:
        """Give what libiscsi and QEMU take."""
        [url] = self.say(f"/volumes/{volume}", "info")["iscsi_urls"]
        return str(url)


@contextmanager
def appliance(folder: Path, *options: str) -> Iterator[Appliance]:
    """Run an appliance while the context lasts."""
    folder.mkdir(exist_ok=True)
    running = Appliance(folder)
    running.start(*options)
    try:
        yield running
    finally:
        running.kill()


def tool(*words: str | Path, timeout_s: float = 120) -> str:
    """Run a tool that must succeed; give its output."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}:\n{done.stdout}{done.stderr}"
    return done.stdout


def refused(*words: str | Path, timeout_s: float = 60) -> str:
    """Run a tool that must fail; give all it said."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode != 0, f"{' '.join(map(str, words))} went through:\n{done.stdout}"
    return done.stdout + done.stderr


def luns_seen(portal: str, initiator: str = INITIATOR, credentials: str = "") -> Sequence[str]:
    """List the LUNs that libiscsi sees at a portal, by their sizes."""
    listed = tool("iscsi-ls", "-i", initiator, "--show-luns", f"iscsi://{credentials}{portal}")
    return [line.strip() for line in listed.splitlines() if line.startswith("Lun:")]
