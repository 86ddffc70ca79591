"""Completion of a command line, out of the table of commands and the tree of names. No terminal in here."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from appliance.mic.commands import Command, CommandError, at, command_at, pattern_of
from cli.words import looks_like_path, resolve

BUILT_IN: Final = ("cd", "exit", "help", "pwd")
DELIMITERS: Final = " \t\n=,'\""

Names = Mapping[str, Sequence[str]]
"""The names in each folder: ``{"/alus": ["a0", "a1"], "/": ["alus", ...]}``."""


def complete(before: str, text: str, current: str, names: Names) -> list[str]:
    """Give what ``text`` can become; ``before`` is the line in front of it."""
    words = before.split()
    path = current
    if words and looks_like_path(words[0]):
        path = resolve(current, words.pop(0))
    try:
        if not words:
            return _starting(text, [*_first_words(path, path == current, names), *_paths(text, current, names)])
        command = command_at(path, words[0])
    except CommandError:
        return []  # the line is wrong already; its error is told when it is entered
    if before[-1] in "=,":
        return _starting(text, [f"{value} " for value in _values(command, words[-1], names)])
    given = {word.partition("=")[0] for word in words[1:]}
    return _starting(text, [f"{p.name}=" for p in command.parameters if p.name not in given])


def _first_words(path: str, path_open: bool, names: Names) -> Iterable[str]:
    """Give the commands at a path and, where no path is typed yet, the names below it."""
    pattern, _ = pattern_of(path)
    for command in at(pattern):
        yield f"{command.name} "
    if path_open:
        yield from (f"{word} " for word in BUILT_IN)
        yield from (f"{name}/" for name in names.get(path, ()))


def _paths(text: str, current: str, names: Names) -> Iterable[str]:
    """Give the paths that a beginning with a slash in it can become."""
    if "/" not in text:
        return
    head = text[: text.rindex("/") + 1]
    folder = resolve(current, head)
    for name in names.get(folder, ()):
        has_more = bool(names.get(posixpath.join(folder, name)))
        yield f"{head}{name}" + ("/" if has_more else " ")


def _values(command: Command, word: str, names: Names) -> Iterable[str]:
    """Give what can stand behind ``name=``."""
    name = word.partition("=")[0]
    kind = next((parameter.kind for parameter in command.parameters if parameter.name == name), None)
    if kind is None:
        return ()
    return kind.choices or names.get(kind.folder, ())


def _starting(text: str, candidates: Iterable[str]) -> list[str]:
    return sorted({candidate for candidate in candidates if candidate.startswith(text)})
