"""The interactive shell (R34): configshell's loop, tree and prompt; our words, commands and completion.

configshell's own parser knows no quotes and drops what it does not understand without a word, so
every line goes the way of the one-line form instead. Its preferences (a pickle, written in place)
are not used. Its import replaces the handler of SIGINT; ours is put back.
"""

from __future__ import annotations

import readline
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.mic.commands import CommandError, at, pattern_of
from appliance.mic.values import shown
from appliance.mic.views import untold
from backstores.errors import TiergateError
from cli.client import Client
from cli.completion import DELIMITERS, complete
from cli.help import show_help
from cli.main import EXIT_OK, INTERRUPTED, report_error, run_line
from cli.words import JSON_OPTION, looks_like_path, resolve, split_line

_sigint = signal.getsignal(signal.SIGINT)
from configshell_fb import ConfigNode, ConfigShell  # noqa: E402
from configshell_fb.console import Console  # noqa: E402

signal.signal(signal.SIGINT, _sigint)

WELCOME: Final = "Tiergate. `help` tells what there is, Tab completes, `exit` leaves.\n"


class Node(ConfigNode):  # type: ignore[misc]  # configshell has no types
    """A thing that has a path. It only shows; what is done with it, the appliance does."""

    def __init__(self, tree: Mapping[str, Any], parent: Node | None = None, shell: Shell | None = None) -> None:
        super().__init__(tree["name"], parent, shell)
        self._summary = (tree["summary"], tree["healthy"])
        for child in tree["children"]:
            Node(child, parent=self)

    def summary(self) -> tuple[str, bool | None]:
        """Tell configshell what stands behind the name."""
        return self._summary


class Shell(ConfigShell):  # type: ignore[misc]  # configshell has no types
    """A session with one appliance."""

    def __init__(self, client: Client, json: bool) -> None:
        super().__init__()
        self._client = client
        self._json = json
        self._built_in: Mapping[str, Callable[[str, list[str]], None]] = {
            "cd": self._cd,
            "exit": self._leave,
            "quit": self._leave,
            "help": self._help,
            "ls": self._ls,
            "pwd": self._pwd,
        }
        readline.set_completer_delims(DELIMITERS)
        readline.set_completion_display_matches_hook(None)
        self.refresh()

    @property
    def path(self) -> str:
        """Where the session stands."""
        return str(self._current_node.path) if self._current_node else "/"

    @property
    def left(self) -> bool:
        """Whether the session has ended."""
        return bool(self._exit)

    def refresh(self) -> None:
        """Fetch the tree anew: another session may have changed it."""
        path = self.path
        Node(self._client.call("/", "ls", {}, untold), shell=self)
        try:
            self._current_node = self._root_node.get_node(path)
        except ValueError:
            self._current_node = self._root_node  # where we stood is gone

    def run_cmdline(self, cmdline: str) -> None:
        """Carry out a line; an error is shown, and the session goes on."""
        try:
            self.run(split_line(cmdline))
        except TiergateError as error:
            report_error(error, self._json)
        except KeyboardInterrupt:
            sys.stderr.write(INTERRUPTED)

    def run(self, words: list[str]) -> None:
        """Carry out a command.

        Raises:
            TiergateError: the line is wrong, or the appliance said no.
        """
        json = self._json or JSON_OPTION in words
        rest = [word for word in words if word != JSON_OPTION]
        if not rest:
            return
        path = self.path
        if looks_like_path(rest[0]) or self._is_child(rest[0]):
            path = resolve(path, rest.pop(0))
        if not rest:
            self._cd(path, [])
        elif rest[0] in self._built_in and not json:
            self._built_in[rest[0]](path, rest[1:])
        else:
            run_line(self._client, rest, json, path)

    def _is_child(self, word: str) -> bool:
        """Tell the name of something right below from a command, which goes first."""
        commands = {command.name for command in at(pattern_of(self.path)[0])}
        if word in commands or word in self._built_in:
            return False
        self.refresh()
        return any(child.name == word for child in self._current_node.children)

    def _cd(self, path: str, words: list[str]) -> None:
        self._current_node = self._node("cd", path, words)

    def _ls(self, path: str, words: list[str]) -> None:
        Console(stdout=sys.stdout)  # its state is shared; without this it is that of its import
        self._node("ls", path, words).ui_command_ls()

    def _node(self, command: str, path: str, words: list[str]) -> ConfigNode:
        """Find the node that a built-in command is about, in a fresh tree."""
        _no_more(command, words[1:])
        target = resolve(path, words[0] if words else ".")
        pattern_of(target)
        self.refresh()
        try:
            return self._root_node.get_node(target)
        except ValueError:
            raise CommandError(f"there is no {shown(target)}") from None

    def _help(self, path: str, words: list[str]) -> None:
        show_help(words or ([path] if path != "/" else []), self._json, path)

    def _pwd(self, path: str, words: list[str]) -> None:
        _no_more("pwd", words)
        sys.stdout.write(f"{path}\n")

    def _leave(self, _path: str, words: list[str]) -> None:
        _no_more("exit", words)
        self._exit = True

    def _complete(self, text: str, state: int) -> str | None:
        """Answer readline, which asks for one completion after the other."""
        if state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            try:
                self.refresh()
                self._current_completions = complete(before, text, self.path, self._names())
            except TiergateError:
                self._current_completions = []  # said when the line is entered: a line being typed is no place for it
        return self._current_completions[state] if state < len(self._current_completions) else None

    def _names(self) -> dict[str, list[str]]:
        waiting, names = [self._root_node], {}
        for node in waiting:
            names[node.path] = sorted(child.name for child in node.children)
            waiting.extend(node.children)
        return names


def run_shell(client: Client, json: bool) -> int:
    """Run a session: with a person at a terminal, else with the lines of standard input up to the first error."""
    if not sys.stdin.isatty():
        return _run_lines(client, json)
    shell = Shell(client, json)
    sys.stdout.write(WELCOME)
    while not shell.left:
        try:
            shell.run_interactive()
        except KeyboardInterrupt:  # a second one, while configshell was dealing with the first
            sys.stdout.write("\n")
    return EXIT_OK


def _run_lines(client: Client, json: bool) -> int:
    shell = Shell(client, json)
    for line in sys.stdin:
        shell.run(split_line(line))
        if shell.left:
            break
    return EXIT_OK


def _no_more(command: str, words: list[str]) -> None:
    if words:
        raise CommandError(f"{shown(words[0])} has no place behind {command}")
