"""What the console says next, and the way to give a key (R34, R35)."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.messages import AluState
from cli import words
from cli.client import Client
from images import console
from images.console import CLAIMABLE, OWNED, WORDS, add_key, command, greeting, menu, next_steps
from tests.support.appliance import appliance, need, tool

GIB = 1 << 30


def alu(name: str, state: str = "blank", gib: int = 2, detail: str = "") -> Mapping[str, Any]:
    """Give a row of /alus list."""
    return {"name": name, "state": state, "size": f"{gib} GiB", "size_bytes": gib * GIB, "detail": detail}


def volume(name: str, *hosts: str) -> Mapping[str, Any]:
    """Give a row of /volumes list."""
    return {"name": name, "hosts": list(hosts)}


def commands(text: str) -> list[str]:
    """Give the lines to type."""
    return re.findall(r"(?m)^    (/.*)$", text)


CLAIM = "/alus claim alus=vdb,vdc"
CREATE = "/volumes create name=v1 size=1G layout=mirror"
EXPOSE = "/volumes/v1 expose host=any iqn=*"
FRESH = [alu("vdb"), alu("vdc")]
CLAIMED = [alu("vdb", "owned"), alu("vdc", "owned")]


@pytest.mark.parametrize(
    ("alus", "volumes", "lines"),
    [
        (FRESH, [], [CLAIM, CREATE, EXPOSE]),
        (CLAIMED, [], [CREATE, EXPOSE]),
        (CLAIMED, [volume("db")], ["/volumes/db expose host=any iqn=*"]),
        (CLAIMED, [volume("db", "web1"), volume("new")], []),
        ([alu("vdb", gib=10)], [], ["/alus claim alus=vdb", "/volumes create name=v1 size=4G layout=linear", EXPOSE]),
        ([*FRESH, alu("vdd", detail="holds data: XFS")], [], [CLAIM, CREATE, EXPOSE]),
        ([alu("vdb", "foreign", detail="claimed by another")], [], ["/alus scan"]),
        ([], [], ["/alus scan"]),
    ],
    ids=["fresh", "claimed", "made", "exposed", "one-disk", "data-left-out", "foreign-left-out", "no-disk"],
)
def test_the_next_commands_are_those_that_are_missing(
    alus: list[Mapping[str, Any]], volumes: list[Mapping[str, Any]], lines: list[str]
) -> None:
    """R2: what holds something of somebody's is not offered."""
    assert commands(next_steps(alus, volumes)) == lines


def test_the_next_commands_can_be_typed() -> None:
    for line in (CLAIM, CREATE, EXPOSE):
        words.command_line(shlex.split(line))


def test_the_states_are_those_of_the_appliance() -> None:
    assert (CLAIMABLE, OWNED) == (AluState.BLANK, AluState.OWNED)


def test_the_greeting_of_an_appliance_says_where_hosts_log_in(tmp_path: Path) -> None:
    with appliance(tmp_path) as running:
        said = greeting(Client(running.state))
        [sp] = running.say("/sps", "status")
        assert f"Hosts log in at {sp['portal']}, target {sp['target']}." in said
        assert "SSH is off" in said
        assert commands(said) == ["/alus scan"]


def test_the_greeting_without_an_appliance_says_how_to_find_out_why(tmp_path: Path) -> None:
    assert "journalctl -u tiergate" in greeting(Client(tmp_path))


def test_the_menu_names_every_word() -> None:
    for word in WORDS:
        assert f"    {word.name or 'Enter':<10} {word.help}\n" in menu()


def test_a_program_that_fails_does_not_end_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    command("sh", "-c", "echo shown; exit 3")()
    assert capfd.readouterr().out == "shown\n"


def reading(file: Path) -> Callable[[str], str]:
    """Answer as somebody does who pastes a file's text."""
    return lambda _: file.read_text()


@need("ssh-keygen")
def test_a_key_is_added_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / ".ssh" / "authorized_keys"
    for name in ("first", "second"):
        tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name))
        add_key(keys, reading(tmp_path / f"{name}.pub"))
    assert [line.split()[2] for line in keys.read_text().splitlines()] == ["first", "second"]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert capsys.readouterr().out.count("may log in by SSH, as root") == 2


@need("ssh-keygen")
@pytest.mark.parametrize("text", ["", "no key", "ssh-ed25519 AAAA"], ids=["empty", "text", "cut-short"])
def test_what_is_no_key_changes_nothing(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Above all no file: it would start SSH."""
    add_key(tmp_path / "authorized_keys", lambda _: text)
    assert "no public key" in capsys.readouterr().out
    assert not (tmp_path / "authorized_keys").exists()


def test_the_console_shows_the_shell_first_and_the_menu_when_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that there is not changes nothing, Ctrl-C leads back to the shell, a terminal that goes is the end."""
    done: list[str] = []
    typed: Iterator[str | type[BaseException]] = iter(["nonsense", "root", KeyboardInterrupt, "root", "", EOFError])

    def answer(_: str) -> str:
        said = next(typed)
        if isinstance(said, str):
            return said
        raise said

    monkeypatch.setenv("TIERGATE_STATE", str(tmp_path))
    monkeypatch.setattr(console, "WORDS", [replace(word, do=partial(done.append, word.name)) for word in WORDS])
    monkeypatch.setattr("builtins.input", answer)
    assert console.main() == 0
    assert done == ["", "root", "", "root", ""]
    shown = capsys.readouterr().out
    assert shown.count("there is no 'nonsense'") == 1
    assert shown.count("does not answer") == 3, "the greeting comes with the shell"
