"""The table of commands, and the door that all commands pass."""

from __future__ import annotations

import inspect
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mic.commands import ANYWHERE, COMMANDS, Command, CommandError, bind, folders
from backstores.errors import UsageError
from tests.appliance.mic.conftest import Site


def _id(command: Command) -> str:
    return f"{command.path} {command.name}"


@pytest.mark.parametrize("command", COMMANDS, ids=_id)
def test_each_row_of_the_table_agrees_with_the_api_behind_it(site: Site, command: Command) -> None:
    takes = set(inspect.signature(command.api(site.management)).parameters)
    gives = {parameter.keyword for parameter in command.parameters}
    gives |= {"name"} if command.path.endswith("/NAME") else set()
    gives |= {"path"} if command.path == ANYWHERE else set()
    gives |= {"progress"} if command.reports else set()
    assert takes == gives


@pytest.mark.parametrize("command", COMMANDS, ids=_id)
def test_each_default_is_a_value_of_its_kind(command: Command) -> None:
    for parameter in command.parameters:
        if parameter.default is not None:
            parameter.kind.parse(parameter.default)
        assert not (parameter.required and parameter.default)


@pytest.mark.parametrize("command", COMMANDS, ids=_id)
def test_what_completes_a_value_is_a_folder_or_a_choice_that_it_takes(command: Command) -> None:
    for parameter in command.parameters:
        assert not parameter.kind.folder or parameter.kind.folder in folders()
        for choice in parameter.kind.choices:
            parameter.kind.parse(choice)


BAD_LINES = [
    # path, command, arguments, what the error must name
    ("/nowhere", "list", {}, ["/nowhere", "/alus"]),
    ("/volumes/db/deeper", "info", {}, ["/volumes/db/deeper", "too deep"]),
    ("/sps/sp1", "info", {}, ["/sps/sp1"]),
    ("/volumes/-x", "info", {}, ["'-x'", "is no name"]),
    ("/volumes", "crate", {}, ["'crate'", "create"]),
    ("/volumes", "", {}, ["''", "create"]),
    ("/volumes", "create", {"nme": "x"}, ["'nme'", "name, size"]),
    ("/volumes", "create", {"size": "1G"}, ["needs name=NAME"]),
    ("/volumes", "create", {"name": "x", "size": "10X"}, ["size", "'10X'", "10G"]),
    ("/volumes", "create", {"name": "x", "size": "0"}, ["size", "0", "1 byte"]),
    ("/volumes", "create", {"name": "a/b", "size": "1G"}, ["name", "'a/b'"]),
    ("/volumes", "create", {"name": "x", "size": "1G", "layout": "raid9"}, ["'raid9'", "stripe-mirror"]),
    ("/volumes", "create", {"name": "x", "size": "1G", "legs": "two"}, ["legs", "'two'"]),
    ("/volumes", "create", {"name": "x", "size": "1G", "block": "520"}, ["'520'", "512, 4096"]),
    ("/volumes", "list", {"all": "yes"}, ["'all'", "it takes nothing"]),
    ("/volumes/db", "expose", {"host": "web1", "lun": "256"}, ["lun", "'256'", "255"]),
    ("/volumes/db", "delete", {"force": "maybe"}, ["force", "'maybe'", "yes nor no"]),
    ("/alus", "attach", {"path": "relative.img"}, ["'relative.img'", "absolute"]),
    ("/hosts", "create", {"name": "h", "iqn": "web"}, ["iqn", "'web'"]),
    ("/hosts", "create", {"name": "h", "iqn": "*", "chap-user": "a b"}, ["chap-user", "'a b'"]),
]


@pytest.mark.parametrize(
    ("path", "command", "given_", "named"), BAD_LINES, ids=lambda v: str(v) if isinstance(v, str) else ""
)
def test_a_bad_line_is_an_error_that_names_the_value_and_what_is_allowed(
    path: str, command: str, given_: dict[str, str | int | bool], named: list[str]
) -> None:
    """R34: an unknown word, a leftover or a bad value is refused before anything happens."""
    with pytest.raises(CommandError) as refused:
        bind(path, command, given_)
    for text in named:
        assert text in str(refused.value)
    assert "\n" not in str(refused.value)


REFUSALS = [
    ("/volumes/none", "info", {}, "there is no volume none; there is db"),
    ("/volumes/none", "delete", {}, "no volume none"),
    ("/alus/none", "claim", {}, "there is no alu none; there is a0, a1, a2, a3"),
    ("/pools/none", "delete", {}, "there is no pool none; there is fast"),
    ("/hosts/none", "info", {}, "there is no host none; there is any, web1"),
    ("/volumes/none", "ls", {}, "there is no none in volumes; there is db"),
    ("/alus", "attach", {"path": "/x/a0.img", "name": "other"}, "/x/a0.img is attached already, as alu a0"),
    ("/alus", "attach", {"path": "/y/a0.img"}, "alu a0 exists already"),
    ("/alus", "attach", {"path": "/y/new.img"}, "/y/new.img does not exist"),
    ("/alus", "attach", {"path": "/y/a b.img", "size": "1G"}, "choose one with name="),
    ("/alus/a0", "detach", {}, "alu a0 is in pool fast"),
    ("/pools", "create", {"name": "fast", "alus": "a0"}, "pool fast exists already"),
    ("/pools", "create", {"name": "slow", "alus": "a0,a9"}, "there is no alu a9"),
    ("/pools/fast", "add", {"alus": "a9"}, "there is no alu a9"),
    ("/pools/fast", "remove", {"alus": "a9"}, "alu a9 is not in pool fast, which has a0, a1, a2, a3"),
    ("/pools/fast", "remove", {"alus": "a0,a1,a2,a3"}, "is all that pool fast has"),
    ("/volumes", "create", {"name": "db", "size": "1M"}, "volume db exists already"),
    ("/volumes", "create", {"name": "x", "size": "1T"}, "T"),
    ("/volumes", "create", {"name": "x", "size": "1M", "pool": "none"}, "there is no pool none"),
    ("/volumes", "create", {"name": "x", "size": "1M", "alus": "a9"}, "there is no alu a9"),
    ("/volumes", "create", {"name": "x", "size": "1M", "pool": "fast", "alus": "a0"}, "not both"),
    ("/volumes", "create", {"name": "x", "size": "1M", "layout": "stripe", "chunk": "3K"}, "chunk 3072"),
    ("/volumes", "create", {"name": "x", "size": "1M", "layout": "mirror", "legs": "99"}, "legs 99"),
    ("/volumes/db", "expose", {"host": "none"}, "there is no host none"),
    ("/volumes/db", "expose", {"host": "web1", "lun": "3"}, "exposed to host web1 as lun 0 already"),
    ("/volumes/db", "unexpose", {"host": "none"}, "there is no host none"),
    ("/volumes/db", "grow", {"size": "1M"}, "is less than volume db has (256 MiB)"),
    ("/volumes/db", "delete", {}, "volume db is exposed to host web1"),
    ("/hosts", "create", {"name": "web1", "iqn": "iqn.2026-01.a:b"}, "host web1 exists already"),
    ("/hosts", "create", {"name": "web2", "iqn": "*"}, "iqn * is host any's already"),
    ("/hosts", "create", {"name": "web2", "iqn": "iqn.2026-01.a:b", "chap-user": "u"}, "go together"),
    ("/hosts/web1", "set-chap", {"chap-user": "u", "chap-secret-file": "/none"}, "/none can't be read"),
    ("/hosts/web1", "delete", {}, "host web1 sees volume db"),
    ("/", "apply", {"file": "tiergate: 2"}, "format 2, this program knows 1"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "command", "given_", "named"), REFUSALS, ids=lambda v: str(v))
def test_a_refused_command_names_the_value_and_changes_nothing(
    furnished: Site, path: str, command: str, given_: dict[str, str | int | bool], named: str
) -> None:
    """R14: the outcome is told; C2: after an error nothing has changed."""
    before = furnished.snapshot()
    with pytest.raises(UsageError) as refused:
        furnished.do(path, command, **given_)
    assert named in str(refused.value)
    assert furnished.snapshot() == before


@settings(deadline=None)
@given(path=st.text(), word=st.text(), given_=st.dictionaries(st.text(), st.text() | st.integers() | st.booleans()))
def test_no_request_whatever_raises_anything_but_a_command_error(
    path: str, word: str, given_: dict[str, str | int | bool]
) -> None:
    with suppress(CommandError):
        bind(path, word, given_)
