"""How results look to a person, and how progress does. JSON is for everybody else.

What comes from hosts (initiator names) is shown with its control characters escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any, Final, TextIO

import msgspec

from appliance.mic.views import ProgressReport, View, untold

WIDE: Final = 10_000  # columns of what is no terminal: lines stay whole for whoever reads them


def render(view: View, result: Any, out: TextIO) -> None:
    """Write a result the way that suits it."""
    RENDERERS[view](result, out)


def render_json(result: Any, out: TextIO) -> None:
    """Write a result as JSON for programs, indented for people."""
    out.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")


def _outcome(result: Mapping[str, Any], out: TextIO) -> None:
    out.write(printable(result["message"]) + "\n")
    out.writelines(f"  {printable(note)}\n" for note in result["notes"])


def _table(result: list[Mapping[str, Any]], out: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    if not result:
        out.write("none\n")
        return
    columns = [key for key in result[0] if not key.endswith("_bytes")]  # sizes are there in words, too
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in result:
        table.add_row(*(Text(_text(row[column])) for column in columns))
    _print(table, out)


def _record(result: Mapping[str, Any], out: TextIO) -> None:
    width = max(len(key) for key in result)
    for key, value in result.items():
        if isinstance(value, list) and value:
            lines = [_text(item) for item in value]
        else:
            lines = [_text(value)]
        for number, line in enumerate(lines):
            label = key if number == 0 else ""
            out.write(f"{label:<{width}}  {line}".rstrip() + "\n")


def _tree(result: Mapping[str, Any], out: TextIO) -> None:
    from rich.text import Text
    from rich.tree import Tree

    styles = {True: "green", False: "red", None: ""}

    def label(node: Mapping[str, Any]) -> Text:
        text = Text(printable(node["name"]), "bold")
        if node["summary"]:
            text.append(f"  [{printable(node['summary'])}]", f"not bold {styles[node['healthy']]}")
        return text

    def grow(tree: Tree, node: Mapping[str, Any]) -> None:
        for child in node["children"]:
            grow(tree.add(label(child)), child)

    root = Tree(label(result))
    grow(root, result)
    _print(root, out)


def _document(result: Mapping[str, Any], out: TextIO) -> None:
    out.write(msgspec.yaml.encode(result).decode())


RENDERERS: Final[Mapping[View, Callable[[Any, TextIO], None]]] = {
    View.OUTCOME: _outcome,
    View.TABLE: _table,
    View.RECORD: _record,
    View.TREE: _tree,
    View.DOCUMENT: _document,
}


def printable(text: str) -> str:
    """Escape what a terminal would act upon."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(value: Any) -> str:
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_text(item) for item in value)
        case dict():
            return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
        case _:
            return printable(str(value))


def _print(what: Any, out: TextIO) -> None:
    from rich.console import Console

    if out.isatty():
        Console(file=out, highlight=False, emoji=False, markup=False).print(what)
        return
    text = StringIO()
    Console(file=text, width=WIDE, highlight=False, emoji=False, markup=False).print(what)
    out.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())  # rich pads every line


@contextmanager
def progress_shown(quiet: bool) -> Iterator[ProgressReport]:
    """Show how far a command has come, on the error stream: a bar on a terminal, plain lines elsewhere."""
    if quiet:
        yield untold
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _plain_line


def _plain_line(text: str, done: int, total: int) -> None:
    sys.stderr.write(f"{printable(text)} ({done}/{total})\n")
    sys.stderr.flush()


@contextmanager
def _bar() -> Iterator[ProgressReport]:
    """Show a bar from the first report on: a command without one shows nothing, and rich is not loaded for it."""
    shown: list[Any] = []

    def report(text: str, done: int, total: int) -> None:
        if not shown:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            shown.extend((bar, bar.add_task("", total=total)))
            bar.start()
        shown[0].update(shown[1], description=printable(text), completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            shown[0].stop()
