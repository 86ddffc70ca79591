"""S2: a CHAP secret is in the database and where it is asked for, and nowhere else."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import msgspec
import pytest

from appliance.mic.commands import COMMANDS, Command
from appliance.mic.document import read_document
from appliance.mic.store import FILE_NAME, open_store
from backstores.errors import UsageError
from cli.main import main
from tests.appliance.mic.conftest import Site
from tests.appliance.mic.test_hosts import MUTUAL, SECRET, secret_file
from tests.support.management import running


@pytest.fixture
def with_secrets(furnished: Site, tmp_path: Path) -> Site:
    """An appliance with a host that uses mutual CHAP."""
    furnished.do(
        "/hosts/web1", "set-chap", chap_user="alice", chap_secret_file=secret_file(tmp_path, "s", SECRET.encode()),
        mutual_user="box", mutual_secret_file=secret_file(tmp_path, "m", MUTUAL.encode()),
    )  # fmt: skip
    return furnished


def leaks(text: str) -> bool:
    """Say whether a secret is in a text."""
    return SECRET in text or MUTUAL in text


READING = [command for command in COMMANDS if not command.changes]


@pytest.mark.parametrize("command", READING, ids=lambda command: f"{command.path} {command.name}")
def test_no_answer_holds_a_secret(with_secrets: Site, command: Command) -> None:
    names = {"/alus": "a0", "/pools": "fast", "/volumes": "db", "/hosts": "web1"}
    folder, _, rest = command.path.removeprefix("/").partition("/")
    path = f"/{folder}/{names['/' + folder]}" if rest == "NAME" else "/" if rest else command.path
    path = "/" if command.path == "**" else path
    result = with_secrets.do(path, command.name)
    assert not leaks(msgspec.json.encode(result).decode())
    assert not leaks(repr(result))


def test_no_repr_holds_a_secret(with_secrets: Site) -> None:
    whole = with_secrets.do("/", "export", secrets="yes")
    text = msgspec.yaml.encode(whole).decode()
    assert leaks(text)
    for thing in (whole, read_document(text), with_secrets.store.settings, with_secrets.sp.hosts):
        assert not leaks(repr(thing))


def test_no_log_and_no_history_holds_a_secret(with_secrets: Site, caplog: pytest.LogCaptureFixture) -> None:
    text = msgspec.yaml.encode(with_secrets.do("/", "export", secrets="yes")).decode()
    with caplog.at_level(logging.DEBUG):
        fresh = Site()
        fresh.do("/", "apply", file=text)
        assert fresh.sp.hosts == with_secrets.sp.hosts
        assert not leaks(repr(fresh.do("/operations", "list")))
    assert caplog.records
    assert not leaks(caplog.text)


def test_no_error_about_a_document_holds_its_secret() -> None:
    for document in (
        f"tiergate: 1\nhosts: [{{name: h, iqn: '*', chap-user: u, chap-secret: '{SECRET}', typo: 1}}]",
        f"tiergate: 1\nhosts: [{{name: h, iqn: '*', chap-secret: '{SECRET}'}}]",
        f"tiergate: 1\nhosts: [{{name: h, iqn: '*', chap-user: u, chap-secret: ['{SECRET}']}}]",
    ):
        with pytest.raises(UsageError) as refused:
            Site().do("/", "apply", file=document)
        assert not leaks(str(refused.value))


def test_over_the_socket_and_on_the_terminal_only_the_asked_for_export_shows_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole way: command line, socket, database file."""
    secret = secret_file(tmp_path, "s", SECRET.encode())
    state = tmp_path / "state"
    state.mkdir()
    base = ["--state", str(state)]
    with running(state, open_store(state)):
        main([*base, "/hosts", "create", "name=h", "iqn=*", "chap-user=u", f"chap-secret-file={secret}"])
        for line in ("/hosts list", "/hosts/h info", "export", "ls", "/operations list", "/hosts/h info --json"):
            assert main([*base, *line.split()]) == 0
        shown = capfd.readouterr()
        assert not leaks(shown.out + shown.err)
        main([*base, "export", "secrets=yes", "--json"])
        assert json.loads(capfd.readouterr().out)["hosts"][0]["chap-secret"] == SECRET
    holders = [path for path in state.iterdir() if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert {path.name for path in holders} <= {FILE_NAME, f"{FILE_NAME}-wal"}
    assert holders
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)


def test_a_secret_is_never_a_word_of_a_command_line() -> None:
    """Words of a command line are seen by every user of a machine: secrets come in files."""
    words = {parameter.name for command in COMMANDS for parameter in command.parameters if "secret" in parameter.name}
    assert words == {"chap-secret-file", "mutual-secret-file", "secrets"}
