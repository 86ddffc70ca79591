"""The supervisor with real processes: forked, restarted, ended in order, and none left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.appliance import READY_S


@dataclass
class System:
    """A system of stand-ins, and what its processes have told that nobody has asked for yet."""

    process: subprocess.Popen[bytes]
    unasked: list[str] = field(default_factory=list)

    def until(self, start: str) -> str:
        """Give the rest of the next line that begins so; which of two processes speaks first is chance."""
        assert self.process.stdout is not None
        while not (found := [line for line in self.unasked if line.startswith(start)]):
            ready, _, _ = select.select([self.process.stdout], [], [], READY_S)
            line = self.process.stdout.readline().decode().rstrip() if ready else ""
            assert line, f"nobody says {start!r}: {self.unasked}"
            self.unasked.append(line)
        self.unasked.remove(found[0])
        return found[0][len(start) :].strip()

    def vcm_heard(self, count: int) -> set[str]:
        """Give the next processes of which the VCM has heard that they started."""
        return {self.until("vcm-heard-started") for _ in range(count)}

    def rest(self) -> list[str]:
        """Read until the last of its processes has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode().splitlines()

    def say(self, line: str) -> None:
        """Have the MIC say something to the supervisor."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def settle(self) -> None:
        """Wait until the supervisor has obeyed: it takes one word after the other, and complains of this one."""
        self.say("hold nobody")
        assert self.process.stderr is not None
        assert b"names a process that there is not" in self.process.stderr.readline()

    def ready(self, *names: str) -> dict[str, int]:
        """Wait until these are at work; give their process numbers."""
        pids: dict[str, int] = {}
        while set(names) - set(pids):
            name, pid = self.until("ready").split()
            pids[name] = int(pid)
        return pids


@contextmanager
def system(*arguments: str) -> Iterator[System]:
    """Run one; whatever is left of it at the end is killed."""
    line = [sys.executable, "-m", "tests.support.standin", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, bufsize=0, cwd=Path(__file__).parents[3], process_group=0, **pipes) as process:
        try:
            yield System(process)
        finally:
            process.kill()


def title_of(pid: int) -> tuple[str, str]:
    """Give what lists of processes show: the name, and the command line."""
    folder = Path(f"/proc/{pid}")
    return (folder / "comm").read_text().strip(), (folder / "cmdline").read_text().strip("\0")


def test_every_process_runs_under_its_name() -> None:
    """R9: ``ps`` tells which is which."""
    with system("2") as running:
        pids = running.ready("vcm", "mic", "sp1", "sp2")
        for name, pid in pids.items():
            assert title_of(pid) == (f"tiergate: {name}"[:15], f"tiergate: {name}")
            assert os.getpgid(pid) == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_end_in_order(number: signal.Signals) -> None:
    """SPs first, so that volumes are stopped while VCM and MIC are there."""
    with system("2") as running:
        running.ready("vcm", "mic", "sp1", "sp2")
        running.process.send_signal(number)
        ended = [line.split()[1] for line in running.rest() if line.startswith("ended")]
        assert running.process.wait() == 0
        assert sorted(ended[:2]) == ["sp1", "sp2"]
        assert ended[2:] == ["vcm", "mic"]


def test_a_killed_process_is_forked_again_and_the_vcm_hears_of_it() -> None:
    """R9: at once, not by silence."""
    with system("2") as running:
        pids = running.ready("vcm", "mic", "sp1", "sp2")
        running.vcm_heard(3)
        os.kill(pids["sp1"], signal.SIGKILL)
        assert running.until("vcm-heard-ended") == "sp1 -9"
        assert running.vcm_heard(1) == {"sp1"}
        assert running.ready("sp1")["sp1"] != pids["sp1"]


def test_a_vcm_that_was_forked_again_hears_who_runs() -> None:
    """C1: its picture begins with that."""
    with system("2") as running:
        pids = running.ready("vcm", "mic", "sp1", "sp2")
        assert running.vcm_heard(3) == {"mic", "sp1", "sp2"}
        os.kill(pids["vcm"], signal.SIGKILL)
        running.ready("vcm")
        assert running.vcm_heard(3) == {"mic", "sp1", "sp2"}


def test_when_the_supervisor_is_killed_nobody_is_left() -> None:
    """The next start needs their locks and ports."""
    with system("3") as running:
        running.ready("vcm", "mic", "sp1", "sp2", "sp3")
        running.process.kill()
        assert [line for line in running.rest() if line.startswith("ended")] == []  # at its end all have closed it


def test_a_process_that_is_held_stays_away_until_it_is_released() -> None:
    """R19: a failed SP."""
    with system("2") as running:
        pids = running.ready("vcm", "mic", "sp1", "sp2")
        running.say("hold sp1")
        assert running.until("vcm-heard-ended") == "sp1 -9"
        os.kill(pids["sp2"], signal.SIGKILL)
        assert running.ready("sp2")
        assert "ready sp1" not in " ".join(running.unasked)
        running.say("release sp1")
        running.ready("sp1")


def test_a_process_that_is_frozen_goes_on_when_it_is_released() -> None:
    """R19: an SP that only sleeps."""
    with system("1") as running:
        pids = running.ready("vcm", "mic", "sp1")
        running.say("freeze sp1")
        running.settle()
        for name in ("sp1", "mic"):
            os.kill(pids[name], signal.SIGUSR1)
        assert running.until("awake") == "mic"
        running.say("release sp1")
        assert running.until("awake") == "sp1"


def test_a_frozen_process_ends_with_the_others() -> None:
    with system("1") as running:
        running.ready("vcm", "mic", "sp1")
        running.say("freeze sp1")
        running.settle()
        running.process.terminate()
        assert [line.split()[1] for line in running.rest() if line.startswith("ended")] == ["sp1", "vcm", "mic"]


def test_without_its_management_a_system_does_not_start() -> None:
    with system("1", "--fail", "mic") as running:
        running.rest()
        assert running.process.wait() == 1
        assert running.process.stderr is not None
        assert b"error: mic can't be used" in running.process.stderr.read()


def test_a_second_signal_ends_all_at_once() -> None:
    with system("2") as running:
        pids = running.ready("vcm", "mic", "sp1", "sp2")
        os.kill(pids["sp1"], signal.SIGSTOP)  # by somebody else: it can't end in order
        running.process.terminate()
        assert running.until("ended") == "sp2"
        running.process.terminate()
        running.rest()
        assert running.process.wait() == 0


def test_a_process_that_sleeps_is_ended_for_certain_and_started_again() -> None:
    """D4: the VCM hears that it is dead before anybody else serves what it served."""
    with system("1") as running:
        before = running.ready("vcm", "mic", "sp1")
        os.kill(before["sp1"], signal.SIGSTOP)
        running.say("end sp1")
        assert running.until("vcm-heard-ended sp1") == str(-signal.SIGKILL)
        assert running.ready("sp1")["sp1"] != before["sp1"]
