"""From a typed line to a command: words, quotes, paths, ``name=value``.

Quoting follows the POSIX shell. Nothing is ever dropped: a word that has no place is an error that
names it, before anything is asked of the appliance.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.mic import values
from appliance.mic.commands import Command, CommandError, bind, command_at
from appliance.mic.protocol import LINE_LIMIT
from appliance.mic.values import Kind, shown

JSON_OPTION: Final = "--json"
DEFAULT_COMMAND: Final = "ls"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command as it is sent. The values are texts, which the appliance reads."""

    path: str
    command: Command
    given: Mapping[str, str]


def split_line(line: str) -> list[str]:
    """Split a line into words as a POSIX shell does; a line that begins with ``#`` has none.

    Raises:
        CommandError: a quotation is not closed.
    """
    if line.lstrip().startswith("#"):
        return []
    try:
        return shlex.split(line)
    except ValueError as error:
        raise CommandError(f"{shown(line)}: {str(error).lower()}") from error


def looks_like_path(word: str) -> bool:
    """Tell a path from a command: it has a slash, or is made of dots."""
    return "=" not in word and ("/" in word or word in (".", ".."))


def resolve(current: str, word: str) -> str:
    """Make a path absolute."""
    return posixpath.normpath(posixpath.join(current, word)).replace("//", "/")


def command_line(words: Sequence[str], current: str = "/") -> CommandLine:
    """Read ``[PATH] COMMAND [name=value...]``; a path alone lists what is there.

    Raises:
        CommandError: no such path, command or parameter; a word without a place; a value that can't be read.
    """
    rest = list(words)
    path = resolve(current, rest.pop(0)) if rest and looks_like_path(rest[0]) else current
    command = command_at(path, rest.pop(0) if rest else DEFAULT_COMMAND)
    given = {name: _localized(command, name, text) for name, text in _assigned(command, rest).items()}
    bind(path, command.name, given)  # what is wrong shows here, be there an appliance or not
    return CommandLine(path, command, given)


def _assigned(command: Command, words: Sequence[str]) -> dict[str, str]:
    """Give each word its parameter."""
    positional = [parameter.name for parameter in command.parameters if parameter.positional]
    given: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            if not positional:
                raise CommandError(f"{shown(word)} has no place here; {command.name} is typed: {command.usage}")
            name, text = positional.pop(0), word
        if name in given:
            raise CommandError(f"{shown(name)} is given twice, as {shown(given[name])} and as {shown(text)}")
        given[name] = text
    return given


def _localized(command: Command, name: str, text: str) -> str:
    """Turn what only this side understands (its folder, its files) into what the appliance does."""
    kind = next((parameter.kind for parameter in command.parameters if parameter.name == name), None)
    return LOCALIZERS[kind](text) if kind in LOCALIZERS else text


def _located(text: str) -> str:
    """Make a path absolute; a URL is."""
    return text if values.is_remote(text) else _absolute(text)


def _absolute(text: str) -> str:
    if not text:
        raise CommandError("a path is empty")
    return os.path.abspath(os.path.expanduser(text))


def _content(text: str) -> str:
    """Read a file for the appliance; ``-`` is the standard input."""
    try:
        content = sys.stdin.buffer.read(LINE_LIMIT) if text == "-" else _read_file(text)
    except OSError as error:
        raise CommandError(f"file {shown(text)} can't be read: {error.strerror}") from error
    if len(content) >= LINE_LIMIT:
        raise CommandError(f"file {shown(text)} has {LINE_LIMIT} bytes or more; the appliance takes less")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"file {shown(text)} is no UTF-8 text: {error.reason}") from error


def _read_file(text: str) -> bytes:
    with Path(text).expanduser().open("rb") as file:
        return file.read(LINE_LIMIT)


LOCALIZERS: Final[Mapping[Kind | None, Callable[[str], str]]] = {
    values.PATH: _absolute,
    values.LOCATION: _located,
    values.DOCUMENT: _content,
}
