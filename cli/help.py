"""Help, made from the table of commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from appliance.mic.commands import ANYWHERE, COMMANDS, Command, CommandError, Parameter, command_at, pattern_of
from appliance.mic.commands import at as commands_at
from appliance.mic.values import shown
from cli.render import render_json
from cli.words import looks_like_path, resolve

USAGE: Final = """\
usage: tiergate [OPTIONS]                          the interactive shell
       tiergate [OPTIONS] PATH COMMAND [ARGS]      one command, such as: tiergate /volumes list
       tiergate export > FILE                      the whole configuration
       tiergate apply FILE                         make it so; only what differs changes
       tiergate serve ...                          run an appliance (see tiergate serve --help)
       tiergate metadata dump|check|repair ALU...  look at ALUs of an appliance that does not run
       tiergate help [PATH [COMMAND]]              what there is, and what it takes

options:
  --state DIR   which appliance: its state folder (or TIERGATE_STATE); else /var/lib/tiergate
                for root, and the user's own state folder for everybody else
  --json        results and errors as JSON
  --version     print the version
  --help        print this

exit status: 0 done, or nothing to do; 1 refused or failed; 2 the line is wrong; 3 no appliance answers;
             130 interrupted
"""


def show_help(words: Sequence[str], json: bool, current: str = "/") -> None:
    """Explain everything, what can be done at a path, or one command.

    Raises:
        CommandError: there is no such path or command, or a word too many.
    """
    rest = list(words)
    path = resolve(current, rest.pop(0)) if rest and looks_like_path(rest[0]) else current
    if len(rest) > 1:
        raise CommandError(f"{shown(rest[1])} has no place here; help is typed: help [PATH] [COMMAND]")
    if json:
        render_json(_descriptions(path if words else None, rest), sys.stdout)
    elif rest:
        _write_command(command_at(path, rest[0]), sys.stdout)
    elif words:
        _write_path(pattern_of(path)[0], sys.stdout)
    else:
        sys.stdout.write(USAGE)
        for each in dict.fromkeys(command.path for command in COMMANDS if command.path != ANYWHERE):
            _write_path(each, sys.stdout)


def _descriptions(path: str | None, names: Sequence[str]) -> list[dict[str, Any]]:
    """Give the table of commands, or a part of it, for programs."""
    if path is None:
        return [_description(command) for command in COMMANDS]
    if names:
        return [_description(command_at(path, names[0]))]
    return [_description(command) for command in commands_at(pattern_of(path)[0])]


def _description(command: Command) -> dict[str, Any]:
    return {
        "path": command.path,
        "command": command.name,
        "help": command.help,
        "changes": command.changes,
        "parameters": [
            {
                "name": parameter.name,
                "takes": parameter.kind.takes,
                "required": parameter.required,
                "default": parameter.default,
                "choices": list(parameter.kind.choices),
                "help": parameter.help,
            }
            for parameter in command.parameters
        ],
    }


def _write_path(pattern: str, out: TextIO) -> None:
    out.write(f"{pattern}\n")
    for command in commands_at(pattern):
        out.write(f"  {command.name:<12}{command.help}\n")


def _write_command(command: Command, out: TextIO) -> None:
    out.write(f"{command.usage}\n  {command.help}\n")
    for parameter in command.parameters:
        out.write(f"  {parameter.name:<20}{parameter.help}\n{'':<22}{_takes(parameter)}\n")


def _takes(parameter: Parameter) -> str:
    if parameter.required:
        return parameter.kind.takes
    if parameter.default is None:
        return f"{parameter.kind.takes}; may be left out"
    return f"{parameter.kind.takes}; {parameter.default} if left out"
