"""``tiergate metadata``: ALUs of an appliance that does not run, looked at and repaired.

Their content comes from disks that may be broken: what is shown has its control characters escaped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

from appliance import offline
from appliance.offline import Checkup, Dumped
from cli.render import printable, render_json

EXIT_CLEAN: Final = 0
EXIT_PROBLEMS: Final = 1

HEADER: Final = frozenset({"magic", "version", "crc", "address", "alu", "generation", "time_ns", "epoch"})
NANOSECONDS: Final = 1_000_000_000


def main(argv: Sequence[str]) -> int:
    """Carry out one command, and give its exit status.

    Raises:
        TiergateError: an ALU can't be opened, or not be written.
    """
    found = _parse(argv)
    status: int = COMMANDS[found.command](found)
    return status


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; argparse ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="tiergate metadata",
        description="Look at ALUs that no appliance has open, and repair them.",
        epilog="exit status: 0 clean, or done; 1 problems were found, or are left",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    dump = commands.add_parser("dump", help="print every structure; writes nothing")
    check = commands.add_parser("check", help="say what is wrong, and what to do about it; writes nothing")
    repair = commands.add_parser("repair", help="repair what can be repaired safely; without --yes, say what that is")
    repair.add_argument("--yes", action="store_true", help="do it")
    for command in (dump, check, repair):
        command.add_argument("paths", nargs="+", metavar="PATH", help="a file or block device")
        command.add_argument("--json", action="store_true", help="results as JSON")
    for command in (check, repair):
        command.add_argument("--susid", default="", help="whose alus these are; else whose most of them are")
    return parser.parse_args(list(argv))


def _dump(found: argparse.Namespace) -> int:
    dumps = offline.dumped(found.paths)
    if found.json:
        render_json(dumps, sys.stdout)
    else:
        for dump in dumps:
            _write_dump(dump, sys.stdout)
    return EXIT_CLEAN


def _check(found: argparse.Namespace) -> int:
    checkup = offline.checked(found.paths, found.susid)
    if found.json:
        render_json(_plain(checkup), sys.stdout)
    else:
        _write(checkup.troubles, "no problems", sys.stdout)
    return EXIT_CLEAN if checkup.clean else EXIT_PROBLEMS


def _repair(found: argparse.Namespace) -> int:
    if not found.yes:
        checkup = offline.checked(found.paths, found.susid)
        if found.json:
            render_json(_plain(checkup), sys.stdout)
        else:
            _write(
                [f"to be done with --yes: {repair}" for repair in checkup.repairs],
                "nothing can be repaired",
                sys.stdout,
            )
        return EXIT_PROBLEMS if checkup.repairs or not checkup.clean else EXIT_CLEAN
    result = offline.repaired(found.paths, found.susid)
    if found.json:
        render_json({"done": list(map(str, result.done)), "left": _plain(result.left)}, sys.stdout)
    else:
        _write([f"done: {repair}" for repair in result.done], "nothing was repaired", sys.stdout)
        _write([f"left: {trouble}" for trouble in result.left.troubles], "no problems are left", sys.stdout)
    return EXIT_CLEAN if result.left.clean else EXIT_PROBLEMS


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "dump": _dump,
    "check": _check,
    "repair": _repair,
}


def _write(lines: Sequence[object], none: str, out: TextIO) -> None:
    """Write one line for each, or that there is none."""
    out.writelines(f"{printable(str(line))}\n" for line in lines or [none])


def _plain(checkup: Checkup) -> dict[str, object]:
    """Give what was found for programs."""
    return {
        "clean": checkup.clean,
        "susid": checkup.susid,
        "problems": [
            {
                "path": trouble.path,
                "where": trouble.finding.where,
                "problem": trouble.finding.problem,
                "detail": trouble.finding.detail,
                "serious": trouble.serious,
                "text": str(trouble),
            }
            for trouble in checkup.troubles
        ],
        "repairs": list(map(str, checkup.repairs)),
    }


def _write_dump(dump: Dumped, out: TextIO) -> None:
    detail = f": {dump.detail}" if dump.detail else ""
    out.write(printable(f"{dump.path}: {dump.ownership}, format version {dump.version}{detail}") + "\n")
    for one in dump.structures:
        why = f" ({one.detail})" if one.detail else ""
        out.write(printable(f"  {one.address:>12}  {one.name}: {one.standing}{why}") + "\n")
        for line in (*_header(one.fields), *_lines(_rest(one.fields)), *_lines(one.content)):
            out.write(f"{'':16}{printable(line)}\n")


def _header(fields: Mapping[str, object]) -> Iterator[str]:
    """Give what all sectors have in one line."""
    if "generation" in fields:
        yield (
            f"version {fields['version']}, alu {fields['alu']}, generation {fields['generation']},"
            f" epoch {fields['epoch']}, {_time(int(str(fields['time_ns'])))}"
        )


def _rest(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in HEADER}


def _time(time_ns: int) -> str:
    """Give a time stamp for people; one that no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"time {time_ns} ns"


def _lines(content: object) -> Iterator[str]:
    """Give plain values one below the other; each object of a list in a line of its own."""
    match content:
        case None:
            return
        case dict():
            simple = {name: value for name, value in content.items() if not isinstance(value, list | tuple)}
            if simple:
                yield _flat(simple)
            for name, value in content.items():
                if isinstance(value, list | tuple):
                    yield f"{name}: {'' if value else 'none'}".rstrip()
                    yield from (f"  {_flat(item)}" for item in value)
        case list() | tuple():
            yield from map(_flat, content)
        case _:
            yield str(content)


def _flat(value: object) -> str:
    """Give a value in one line."""
    match value:
        case dict():
            return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
        case list() | tuple():
            return f"[{'; '.join(map(_flat, value))}]"
        case None:
            return "none"
        case _:
            return str(value)
