"""Results and progress as a person sees them."""

from __future__ import annotations

import io

import pytest

from appliance.mic.views import View
from cli.render import RENDERERS, printable, progress_shown, render


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def test_every_view_has_its_renderer() -> None:
    assert set(RENDERERS) == set(View)


def test_an_outcome_is_its_message_and_its_notes() -> None:
    out = io.StringIO()
    render(View.OUTCOME, {"message": "done", "changed": True, "notes": ["one", "two"]}, out)
    assert out.getvalue() == "done\n  one\n  two\n"


def test_a_record_says_dash_for_nothing_and_one_line_for_each_of_many() -> None:
    out = io.StringIO()
    render(View.RECORD, {"name": "x", "none": None, "empty": [], "many": ["a", "b"], "flag": True, "n": 0}, out)
    assert out.getvalue().splitlines() == [
        "name   x",
        "none   -",
        "empty  -",
        "many   a",
        "       b",
        "flag   yes",
        "n      0",
    ]


@pytest.mark.parametrize("out", [io.StringIO(), Screen()], ids=["pipe", "terminal"])
def test_brackets_are_no_markup_anywhere(out: io.StringIO) -> None:
    render(View.TABLE, [{"name": "[red]x[/red]"}], out)
    render(View.TREE, {"name": "[b]", "summary": ":smile:", "healthy": False, "children": []}, out)
    for text in ("[red]x[/red]", "[b]", ":smile:"):
        assert text in out.getvalue()


def test_a_pipe_gets_long_lines_whole() -> None:
    out = io.StringIO()
    render(View.TABLE, [{"name": "x" * 500, "path": "y" * 500}], out)
    assert out.getvalue().splitlines()[1] == "x" * 500 + "  " + "y" * 500


@pytest.mark.parametrize(
    ("text", "shown"), [("plain ä", "plain ä"), ("\x1b[2J", r"\x1b[2J"), ("a\nb\r\x07", r"a\nb\r\x07")]
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_progress_is_lines_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(quiet=False) as report:
        report("copying", 1, 3)
    assert capsys.readouterr() == ("", "copying (1/3)\n")


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # rich draws no bar on a dumb terminal
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    with progress_shown(quiet=False) as report:
        report("copying", 1, 2)
        report("copying more", 2, 2)
    assert "copying" in screen.getvalue()


def test_progress_is_silent_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(quiet=True) as report:
        report("copying", 1, 3)
    assert capsys.readouterr() == ("", "")
