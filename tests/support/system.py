"""A real system of several storage processors, a process each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.appliance import READY_S, Appliance


@dataclass
class System(Appliance):
    """``tiergate serve --topology`` in a folder."""

    topology: str = "sps: 3"

    def where(self) -> list[str]:
        path = self.folder / "topology.yaml"
        path.write_text(self.topology)
        return [f"--topology={path}", f"--port={self.port}"]

    def pid(self, name: str) -> int:
        """Give the process of this name: sp1, vcm, mic."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0] == f"tiergate: {name}".encode():
                return int(child)
        raise AssertionError(f"there is no process of {name}")

    def signal(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process; give its number."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def sp(self, name: str) -> dict[str, Any]:
        """Tell how a storage processor is."""
        [found] = [sp for sp in self.say("/sps", "status") if sp["name"] == name]
        return dict(found)

    def master(self) -> str:
        """Name the MVSP."""
        return next((str(sp["name"]) for sp in self.say("/sps", "status") if sp["master"]), "")

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Ask again and again until something is true; say how long that took."""
        since_s = time.monotonic()
        while not condition():
            assert time.monotonic() < since_s + READY_S, f"it is not so: {what}\n{self.log}"
        return time.monotonic() - since_s


@contextmanager
def system(folder: Path, topology: str, *options: str) -> Iterator[System]:
    """Run a system while the context lasts."""
    folder.mkdir(exist_ok=True)
    running = System(folder, topology=topology)
    running.start(*options)
    try:
        yield running
    finally:
        running.stop()
