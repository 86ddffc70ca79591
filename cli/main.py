"""The ``tiergate`` command: options, the one-line form, and the way to the shell and the appliance.

The one-line form starts fast: it loads neither the shell's library nor the database's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.mic.commands import CommandError
from appliance.mic.protocol import ErrorKind, default_state
from appliance.mic.values import shown
from backstores.errors import TiergateError, UsageError
from cli.client import Client, Refused, Unreachable
from cli.help import show_help
from cli.render import printable, progress_shown, render, render_json
from cli.words import JSON_OPTION, command_line

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_COMMAND_LINE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130  # as a shell says of what SIGINT has ended
EXIT_BROKEN_PIPE: Final = 141  # likewise SIGPIPE

STATUS_OF_KIND: Final[Mapping[ErrorKind, int]] = {
    ErrorKind.COMMAND: EXIT_COMMAND_LINE,
    ErrorKind.USAGE: EXIT_FAILED,
    ErrorKind.FAILED: EXIT_FAILED,
    ErrorKind.INTERNAL: EXIT_FAILED,
}
STATUS_OF_ERROR: Final[tuple[tuple[type[TiergateError], int, ErrorKind], ...]] = (
    (CommandError, EXIT_COMMAND_LINE, ErrorKind.COMMAND),
    (Unreachable, EXIT_UNREACHABLE, ErrorKind.FAILED),
    (UsageError, EXIT_FAILED, ErrorKind.USAGE),
    (TiergateError, EXIT_FAILED, ErrorKind.FAILED),
)
INTERRUPTED: Final = "\ninterrupted; a change under way goes on: `tiergate /operations list` tells how it ends\n"
FLAGS: Final[Mapping[str, str]] = {JSON_OPTION: "json", "--version": "version", "--help": "help", "-h": "help"}


@dataclass(frozen=True, slots=True)
class Options:
    """What stands on the command line beside the command."""

    state: Path
    json: bool
    help: bool
    version: bool
    words: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    json = JSON_OPTION in words
    try:
        status = _run(words)
        sys.stdout.flush()
    except TiergateError as error:
        return report_error(error, json)
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has had enough; nothing more may be written, at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


def _run(words: list[str]) -> int:
    at = _first_word(words)
    if at < len(words) and words[at] == "serve":
        from appliance.serve import main as serve

        return serve(words[:at] + words[at + 1 :])
    if at < len(words) and words[at] == "sp":
        from appliance.processes.join import main as join

        return join(words[:at] + words[at + 1 :])
    if at < len(words) and words[at] == "metadata":
        from cli.metadata import main as metadata

        return metadata(words[at + 1 :] + words[:at])
    options = parse_options(words)
    if options.version:
        sys.stdout.write(f"tiergate {__version__}\n")
        return EXIT_OK
    if options.help or options.words[:1] == ["help"]:
        show_help([word for word in options.words if word != "help"], options.json)
        return EXIT_OK
    client = Client(options.state)
    if not options.words:
        from cli.shell import run_shell

        return run_shell(client, options.json)
    run_line(client, options.words, options.json)
    return EXIT_OK


def _first_word(words: Sequence[str]) -> int:
    """Find the first word that is neither an option nor an option's value."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] == "--state" else 1
    return at


def run_line(client: Client, words: Sequence[str], json: bool, current: str = "/") -> None:
    """Carry out one command and show its result.

    Raises:
        TiergateError: the line is wrong, nobody answers, or the appliance said no.
    """
    line = command_line(words, current)
    with progress_shown(quiet=json) as progress:
        result = client.call(line.path, line.command.name, line.given, progress)
    if json:
        render_json(result, sys.stdout)
    else:
        render(line.command.view, result, sys.stdout)


def report_error(error: TiergateError, json: bool) -> int:
    """Write an error as one line on the error stream, and give its exit status."""
    if isinstance(error, Refused):
        status, kind = STATUS_OF_KIND[error.kind], error.kind
    else:
        status, kind = next((s, k) for type_, s, k in STATUS_OF_ERROR if isinstance(error, type_))
    message = printable(" ".join(str(error).split()))
    if json:
        render_json({"error": {"kind": kind, "message": message}}, sys.stderr)
    else:
        sys.stderr.write(f"error: {message}\n")
    return status


def parse_options(words: Sequence[str]) -> Options:
    """Take the options out of a command line, wherever they stand.

    Raises:
        CommandError: there is no such option, or its value is missing.
    """
    rest: list[str] = []
    seen: set[str] = set()
    state = default_state(os.environ, os.geteuid())
    waiting = iter(words)
    for word in waiting:
        name, equals, text = word.partition("=")
        if word in FLAGS:
            seen.add(FLAGS[word])
        elif name == "--state":
            folder = text if equals else next(waiting, "")
            if not folder or folder.startswith("--"):
                raise CommandError("--state needs a folder")
            state = Path(os.path.abspath(os.path.expanduser(folder)))
        elif word.startswith("--"):
            raise CommandError(f"there is no option {shown(word)}; there is --state DIR, {', '.join(FLAGS)}")
        else:
            rest.append(word)
    return Options(state, "json" in seen, "help" in seen, "version" in seen, rest)


if __name__ == "__main__":
    sys.exit(main())
