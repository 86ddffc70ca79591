"""From a typed line to a command (R34)."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mic.commands import CommandError
from appliance.mic.protocol import LINE_LIMIT
from cli.words import command_line, looks_like_path, resolve, split_line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("   ", []),
        ("# a comment with an ' in it", []),
        ("  # indented", []),
        ("/volumes list", ["/volumes", "list"]),
        ("create name='a b' size=\"1 G\"", ["create", "name=a b", "size=1 G"]),
        (r"attach path=/x/a\ b.img", ["attach", "path=/x/a b.img"]),
        ("iqn=iqn.2026-01.a:b#1", ["iqn=iqn.2026-01.a:b#1"]),
        ("name=''", ["name="]),
    ],
)
def test_words_are_split_and_quoted_as_in_a_posix_shell(line: str, words: list[str]) -> None:
    """R34: values may be quoted; configshell's own parser would drop the rest of the line."""
    assert split_line(line) == words


@pytest.mark.parametrize("line", ["name='a", 'name="a', "name=a\\"])
def test_an_open_quotation_is_an_error_that_shows_the_line(line: str) -> None:
    with pytest.raises(CommandError, match=r"no (closing|escaped)"):
        split_line(line)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_every_word_survives_quoting(words: list[str]) -> None:
    line = "x " + " ".join(shlex.quote(word) for word in words)
    assert split_line(line) == ["x", *words]


@pytest.mark.parametrize(
    ("current", "word", "path"),
    [
        ("/", "volumes/db", "/volumes/db"),
        ("/volumes", "db/", "/volumes/db"),
        ("/volumes", "..", "/"),
        ("/volumes/db", "../../alus", "/alus"),
        ("/volumes", "//alus", "/alus"),
        ("/", "../..", "/"),
        ("/volumes", ".", "/volumes"),
    ],
)
def test_paths_are_taken_from_where_one_stands(current: str, word: str, path: str) -> None:
    assert resolve(current, word) == path


@pytest.mark.parametrize(
    ("word", "is_path"), [("/", True), ("a/b", True), ("..", True), ("list", False), ("path=/x/y", False), ("", False)]
)
def test_a_path_is_told_from_a_command(word: str, is_path: bool) -> None:
    assert looks_like_path(word) is is_path


@pytest.mark.parametrize(
    ("words", "path", "command", "given_"),
    [
        (["/volumes/db", "info"], "/volumes/db", "info", {}),
        (["volumes/db", "expose", "host=w", "lun=0"], "/volumes/db", "expose", {"host": "w", "lun": "0"}),
        (["/volumes", "create", "size=1G", "name=x"], "/volumes", "create", {"size": "1G", "name": "x"}),
        (["/volumes"], "/volumes", "ls", {}),
        ([], "/", "ls", {}),
        (["export", "secrets=no"], "/", "export", {"secrets": "no"}),
        (["/hosts", "create", "name=h", "iqn=iqn.2026-01.a:b"], "/hosts", "create",
         {"name": "h", "iqn": "iqn.2026-01.a:b"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_line_is_path_command_and_values(words: list[str], path: str, command: str, given_: dict[str, str]) -> None:
    line = command_line(words)
    assert (line.path, line.command.name, dict(line.given)) == (path, command, given_)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["/volumes/db", "info", "leftover"], ["'leftover' has no place here", "info is typed: info"]),
        (
            ["/volumes", "create", "db", "20G"],
            ["'db' has no place here", "create is typed: create name=NAME [size=SIZE]"],
        ),
        (["apply", "/dev/null", "prune"], ["'prune' has no place here"]),
        (["/volumes/db", "expose", "host=a", "host=b"], ["'host' is given twice, as 'a' and as 'b'"]),
        (["/volumes/db", "expose", "hosts=a"], ["'hosts'", "it takes host, lun"]),
        (["/volumes/db", "expose"], ["needs host=HOST"]),
        (["/volumes/db", "expose", "host="], ["host: '' is no name"]),
        (["/volumes", "crate"], ["'crate'", "create"]),
        (["create"], ["'create'", "apply, export, ls"]),
        (["/nowhere", "list"], ["'/nowhere'"]),
        (["apply"], ["apply needs FILE"]),
        (["apply", "/no/such/file"], ["'/no/such/file' can't be read: No such file or directory"]),
        (["apply", "/"], ["'/' can't be read: Is a directory"]),
        (["/alus", "attach", "path="], ["a path is empty"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_word_without_a_place_is_an_error_that_names_it(words: list[str], named: list[str]) -> None:
    """R34: an unknown word, a leftover or a bad value: nothing has been asked of the appliance yet."""
    with pytest.raises(CommandError) as refused:
        command_line(words)
    for text in named:
        assert text in str(refused.value)


def test_paths_are_made_absolute_where_the_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/x")
    assert command_line(["/alus", "attach", "path=disk0.img"]).given == {"path": f"{tmp_path}/disk0.img"}
    assert command_line(["/alus", "attach", "path=~/disk0.img"]).given == {"path": "/home/x/disk0.img"}
    url = "iscsi://10.0.0.5/iqn.2026-11.example:array/1"
    assert command_line(["/alus", "attach", f"path={url}"]).given == {"path": url}


def test_a_document_is_read_where_the_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site.yaml").write_text("tiergate: 1\n")
    monkeypatch.chdir(tmp_path)
    assert command_line(["apply", "site.yaml"]).given == {"file": "tiergate: 1\n"}


@pytest.mark.parametrize(
    ("content", "named"), [(b"\xff\xfe", "is no UTF-8 text"), (b"x" * LINE_LIMIT, f"has {LINE_LIMIT} bytes or more")]
)
def test_an_unfit_document_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(CommandError, match=named):
        command_line(["apply", str(tmp_path / "f")])


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=10) | st.sampled_from(["/volumes", "create", "name=x", "size=1G", "/", "ls", "=", "a="]))
)
def test_no_words_whatever_raise_anything_but_a_command_error(words: list[str]) -> None:
    with suppress(CommandError):
        command_line(words)
