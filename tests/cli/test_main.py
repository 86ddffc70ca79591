"""The one-line form, as a program that is run (R34)."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import appliance.serve
from appliance import __version__
from appliance.messages import SessionStatus
from appliance.mic.commands import COMMANDS, Command
from cli.main import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, main, parse_options
from tests.support.fake_sp import FakeSp
from tests.support.management import running

TIERGATE = [sys.executable, "-m", "cli.main"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of a running appliance with one ALU, one volume and one host."""
    monkeypatch.setenv("TIERGATE_STATE", str(tmp_path))
    with running(tmp_path):
        for line in (
            "/alus attach path=/x/a0.img size=1G",
            "/volumes create name=db size=64M",
            "/hosts create name=web1 iqn=iqn.2026-01.org.example:web1",
            "/volumes/db expose host=web1",
        ):
            assert main(line.split()) == 0
        yield tmp_path


def tiergate(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a person's shell would."""
    return subprocess.run([*TIERGATE, *words], input=stdin, capture_output=True, text=True, timeout=60)


def test_one_line_does_one_thing(state: Path) -> None:
    """R34: each command also usable in one line."""
    done = tiergate("/volumes", "create", "name=v", "size=1M")
    assert (done.returncode, done.stdout) == (0, "volume v is on line: 1 MiB, linear\n")
    assert done.stderr.splitlines() == ["storing volume v on a0 (1/2)", "volume v is on line (2/2)"]


def test_json_goes_to_the_output_alone(state: Path) -> None:
    """R34: JSON output; what libiscsi and QEMU take is in it."""
    done = tiergate("/volumes/db", "info", "--json")
    assert done.stderr == ""
    info = json.loads(done.stdout)
    assert info["iscsi_urls"] == ["iscsi://127.0.0.1:3260/iqn.2026-01.org.tiergate:fake/0"]
    assert info["size_bytes"] == 64 << 20


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        ("/volumes/none info", 1, "there is no volume none; there is db"),
        ("/volumes create name=db size=1M", 1, "volume db exists already"),
        ("/volumes/db delete", 1, "volume db is exposed to host web1"),
        ("/volumes crate", 2, "'crate'"),
        ("/volumes create name=x size=10X", 2, "size: '10X'"),
        ("/volumes/db info more", 2, "'more' has no place here"),
        ("--colour=red ls", 2, "no option '--colour=red'"),
        ("--state", 2, "--state needs a folder"),
        ("--state= ls", 2, "--state needs a folder"),
        ("frobnicate", 2, "'frobnicate'"),
        ("help /nowhere", 2, "'/nowhere'"),
        ("help /volumes crate", 2, "'crate'"),
        ("help /volumes create x", 2, "'x' has no place here"),
        ("--state /none/there ls", 3, "no appliance runs in /none/there; start one with `tiergate serve --state"),
    ],
)
def test_an_error_is_one_line_on_the_error_stream_and_a_status(
    state: Path, capsys: pytest.CaptureFixture[str], words: str, status: int, named: str
) -> None:
    """R34: the error names the value, the exit status is not 0."""
    assert main(words.split()) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert named in shown.err
    assert main([*words.split(), "--json"]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert named in json.loads(shown.err)["error"]["message"]


def test_export_and_apply_are_files(state: Path, tmp_path: Path) -> None:
    """C4, as it is typed."""
    exported = tiergate("export").stdout
    (tmp_path / "site.yaml").write_text(exported)
    assert tiergate("apply", str(tmp_path / "site.yaml")).stdout == "nothing to change\n"
    done = tiergate("apply", "-", stdin=exported.replace("size: 64M", "size: 128M"))
    assert done.stdout.splitlines() == ["1 change made", "  grow volume db from 64M to 128M"]


def test_lists_are_tables_that_programs_can_cut(state: Path) -> None:
    lines = tiergate("/volumes", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "state", "size", "layout", "hosts", "wwn"]
    assert lines[1].startswith("db    on line  64 MiB  linear  web1   ")
    assert not any(line.endswith(" ") for line in lines)
    assert tiergate("/sessions", "list").stdout == "none\n"


def test_the_tree_shows_names_and_states(state: Path) -> None:
    shown = tiergate("ls").stdout
    assert "db  [on line, 64 MiB, linear]" in shown
    assert "a0  [owned, 1 GiB, " in shown
    assert tiergate("/volumes").stdout.splitlines()[0] == "volumes  [1]"


def test_a_hosts_control_characters_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S3: an initiator's name is a peer's text."""
    sp = FakeSp()
    sp.logged_in = [SessionStatus(host="h", initiator="iqn.\x1b[31mred\n[bold]x", address="1.2.3.4:5", luns=())]
    with running(tmp_path, sp=sp):
        main(["--state", str(tmp_path), "/sessions", "list"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"iqn.\x1b[31mred\n[bold]x" in shown


def test_the_version_and_the_help_need_no_appliance() -> None:
    assert tiergate("--version").stdout == f"tiergate {__version__}\n"
    assert tiergate("--help").stdout.startswith("usage: tiergate")
    assert tiergate("/volumes", "create", "--help").stdout.startswith("create name=NAME [size=SIZE] [layout=linear]")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.path} {command.name}")
def test_every_command_has_help_with_all_its_parameters(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    path = command.path.replace("**", "/").replace("NAME", "x")
    assert main(["help", path, command.name]) == 0
    shown = capsys.readouterr().out
    assert command.help in shown
    for parameter in command.parameters:
        assert f"  {parameter.name} " in shown
    main(["help", path, command.name, "--json"])
    (described,) = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in described["parameters"]] == [p.name for p in command.parameters]


def test_help_for_programs_is_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["help", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == len(COMMANDS)


def test_the_one_line_form_loads_neither_shell_nor_database(state: Path) -> None:
    script = (
        "import sys; from cli.main import main; main(['/volumes', 'list', '--json']);"
        "slow = {'configshell_fb', 'sqlalchemy', 'rich', 'yaml', 'readline', 'asyncio'};"
        "print(slow & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "set()\n"


def test_a_reader_that_has_had_enough_ends_the_command_quietly(state: Path) -> None:
    with subprocess.Popen([*TIERGATE, "help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == EXIT_BROKEN_PIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_an_interrupt_ends_the_command_and_tells_where_to_look(tmp_path: Path) -> None:
    """C2: it can be left and looked up."""
    with socket.socket(socket.AF_UNIX) as mute:  # an appliance that takes its time
        mute.bind(str(tmp_path / "tiergate.sock"))
        mute.listen()
        command = [*TIERGATE, "--state", str(tmp_path), "/sps", "status"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = mute.accept()
            assert b"/sps" in connection.recv(4096)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == EXIT_INTERRUPTED
    assert shown == "\ninterrupted; a change under way goes on: `tiergate /operations list` tells how it ends\n"


def test_an_appliance_that_dies_in_the_middle_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(tmp_path / "tiergate.sock"))
        dying.listen()
        command = [*TIERGATE, "--state", str(tmp_path), "/sps", "status"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = dying.accept()
            connection.close()
            _, shown = process.communicate(timeout=60)
    assert process.returncode == 3
    assert shown.startswith(f"error: the appliance in {tmp_path} ended before it answered; `tiergate /operations list`")


def test_the_state_folder_is_the_first_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERGATE_STATE", "/from/environment")
    monkeypatch.chdir(tmp_path)
    assert parse_options(["ls"]).state == Path("/from/environment")
    assert parse_options(["--state", "here", "ls"]).state == tmp_path / "here"
    assert parse_options(["ls", "--state=/there"]).state == Path("/there")


def test_serve_gets_its_words_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def serve(words: list[str]) -> int:
        seen.append(words)
        return 7

    monkeypatch.setattr(appliance.serve, "main", serve)
    assert main(["--state", "/s", "serve", "--portal", "127.0.0.1:1", "--help"]) == 7
    assert seen == [["--state", "/s", "--portal", "127.0.0.1:1", "--help"]]
