"""The interactive shell (R34): its words and errors, and one session at a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.client import Client
from cli.shell import Shell
from tests.support.fake_sp import FakeSp
from tests.support.management import running

TIERGATE = [sys.executable, "-m", "cli.main"]


@pytest.fixture
def sp(tmp_path: Path) -> Iterator[FakeSp]:
    """The storage processor of an appliance that runs in ``tmp_path``."""
    with running(tmp_path) as sp:
        yield sp


@pytest.fixture
def shell(tmp_path: Path, sp: FakeSp) -> Iterator[Shell]:
    """A session with one ALU and one volume."""
    client = Client(tmp_path)
    shell = Shell(client, json=False)
    for line in ("/alus attach path='/x/a 0.img' size=1G name=a0", "/volumes create name=db size=1M"):
        shell.run_cmdline(line)
    yield shell
    client.close()


def test_a_quoted_value_arrives_whole(shell: Shell, sp: FakeSp) -> None:
    """configshell's own parser ends a value at the first space, and drops the rest silently."""
    assert list(sp.attached) == ["/x/a 0.img"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("/volumes/db delete please", "'please' has no place here"),
        ("/volumes/db delete force=yes please", "'please' has no place here"),
        ("/volumes/db delete force=maybe", "force: 'maybe' is neither yes nor no"),
        ("/volumes/db remove", "'remove'; it has delete, expose"),
        ("/volumes/none delete", "there is no volume none"),
        ("remove", "/ has no command 'remove'"),
        ("name='open", "no closing quotation"),
        ("cd nowhere", "'/nowhere'"),
        ("cd /volumes/none", "there is no '/volumes/none'"),
        ("cd /volumes /alus", "'/alus' has no place behind cd"),
        ("exit now", "'now' has no place behind exit"),
        ("pwd x", "'x' has no place behind pwd"),
    ],
)
def test_a_bad_line_is_one_error_and_the_session_goes_on(
    shell: Shell, sp: FakeSp, capsys: pytest.CaptureFixture[str], line: str, named: str
) -> None:
    """R34: nothing of a line is dropped; what has no place is refused, and nothing has changed."""
    capsys.readouterr()
    shell.run_cmdline(line)
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert named in shown.err
    assert len(sp.trees) == 1
    assert not shell.left


def test_one_walks_and_works_from_where_one_stands(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    def says(line: str) -> str:
        shell.run_cmdline(line)
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out

    capsys.readouterr()
    assert says("cd volumes") == ""
    assert says("pwd") == "/volumes\n"
    assert says("db info").startswith("name            db\n")
    assert says("db") == ""
    assert says("pwd") == "/volumes/db\n"
    assert says("tree").startswith("volume ")
    assert says("../../alus list").startswith("name  state")
    assert says("..") == ""
    assert "[on line, 1 MiB, linear]" in says("ls")
    assert says("help").startswith("/volumes\n")
    assert says("help create").startswith("create name=NAME")
    assert says("db info --json").startswith("{")
    assert says("# a remark") == says("") == ""
    assert says("exit") == ""
    assert shell.left


def test_what_is_gone_is_left_for_the_root(shell: Shell, tmp_path: Path) -> None:
    shell.run_cmdline("cd /volumes/db")
    Client(tmp_path).call("/volumes/db", "delete", {}, lambda *_: None)
    shell.refresh()
    assert shell.path == "/"


def test_the_tree_is_fresh_whoever_changed_it(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """configshell-fb #60: two shells at once must not break each other."""
    Client(tmp_path).call("/pools", "create", {"name": "other", "alus": "a0"}, lambda *_: None)
    capsys.readouterr()
    shell.run_cmdline("ls /pools")
    assert "other" in capsys.readouterr().out


def test_a_shell_survives_its_appliance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as sp:
        shell = Shell(Client(tmp_path), json=False)
        shell.run_cmdline("/sps status")
    shell.run_cmdline("/sps status")
    assert "ended before it answered" in capsys.readouterr().err
    shell.run_cmdline("/sps status")
    assert "no appliance runs in" in capsys.readouterr().err
    with running(tmp_path, sp=sp):
        shell.run_cmdline("/sps status")
        assert capsys.readouterr().err == ""


def test_importing_the_library_leaves_the_signals_alone() -> None:
    script = (
        "import signal; before = signal.getsignal(signal.SIGINT); import cli.shell;"
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_script_runs_up_to_its_first_error(tmp_path: Path, sp: FakeSp) -> None:
    script = "# make things\n\n/alus attach path=/x/a0.img size=1G\n/alus/a0 clame\n/alus/a0 detach\n"
    done = subprocess.run(
        [*TIERGATE, "--state", str(tmp_path)], input=script, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == "alu a0 is attached: 1 GiB, owned\n"
    assert done.stderr == "error: /alus/a0 has no command 'clame'; it has claim, detach, info, ls\n"
    assert list(sp.attached) == ["/x/a0.img"]


def test_a_script_can_leave_early(tmp_path: Path, sp: FakeSp) -> None:
    done = subprocess.run(
        [*TIERGATE, "--state", str(tmp_path)], input="pwd\nexit\nnonsense\n", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "/\n", "")


class Terminal:
    """A person at a terminal."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._shown = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._handle, text.encode())

    def presses(self, key: str, until: str) -> None:
        """Press a key until a text is shown: Python's readline misses a signal just before it waits for a key."""
        while until not in self._shown:
            self.type(key)
            while until not in self._shown and select.select([self._handle], [], [], 1)[0]:
                self._shown += os.read(self._handle, 65536).decode()
        self._shown = ""

    def sees(self, text: str) -> str:
        """Wait until a text is shown; give all that was shown up to it, since the last time."""
        while text not in self._shown:
            ready, _, _ = select.select([self._handle], [], [], 30)
            assert ready, f"waited for {text!r}, saw {self._shown!r}"
            self._shown += os.read(self._handle, 65536).decode()
        seen, _, self._shown = self._shown.partition(text)
        return seen


def own_terminal() -> None:
    """Become what a login shell starts, however these tests were started."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # or Ctrl-C would be no signal
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored


@contextmanager
def terminal(state: Path) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Start the interactive shell at a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100"}
    with subprocess.Popen(
        [*TIERGATE, "--state", str(state)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True, preexec_fn=own_terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Terminal(ours), process
        finally:
            process.kill()
            os.close(ours)


def test_a_session_at_a_terminal(tmp_path: Path, sp: FakeSp) -> None:
    """R34: the interactive shell, with completion, Ctrl-C and Ctrl-D as a person uses them."""
    with terminal(tmp_path) as (person, process):
        person.sees("Tab completes")
        person.sees("/> ")
        person.type("/alus att\tpa\t'/x/a 0.img' si\t1G na\ta0\n")
        assert "alu a0 is attached" in person.sees("owned")
        person.sees("/> ")
        person.type("/volumes create name=db size=64M lay\tmir\t\n")
        person.sees("error: ")
        assert "2 alus" in person.sees("/> ")
        person.type("vol\t\n")
        person.sees("/volumes> ")
        person.type("half a line")
        person.sees("half a line")
        person.presses("\x03", until="/volumes> ")
        person.type("/alus/a\tinfo\n")
        assert "half a line" not in person.sees("/x/a 0.img")
        person.sees("/volumes> ")
        person.type("\x04")
        person.sees("exit")
        assert process.wait(30) == 0
    assert list(sp.attached) == ["/x/a 0.img"]


def test_a_session_without_an_appliance_ends_at_once(tmp_path: Path) -> None:
    with terminal(tmp_path) as (person, process):
        person.sees("error: no appliance runs in")
        assert process.wait(30) == 3


def test_a_hangup_ends_the_session(tmp_path: Path, sp: FakeSp) -> None:
    with terminal(tmp_path) as (person, process):
        person.sees("/> ")
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGHUP
