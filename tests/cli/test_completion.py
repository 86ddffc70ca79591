"""What Tab offers (R34)."""

from __future__ import annotations

import pytest

from cli.completion import complete

NAMES = {
    "/": ["alus", "hosts", "operations", "pools", "sessions", "sps", "volumes"],
    "/alus": ["a0", "a1", "b0"],
    "/hosts": ["any", "web1"],
    "/pools": ["fast"],
    "/volumes": ["data", "db"],
    "/volumes/db": [],
}


@pytest.mark.parametrize(
    ("before", "text", "current", "offered"),
    [
        ("", "e", "/", ["exit ", "export "]),
        ("", "v", "/", ["volumes/"]),
        ("", "/vol", "/", ["/volumes/"]),
        ("", "/volumes/d", "/", ["/volumes/data ", "/volumes/db "]),
        ("", "volumes/db", "/", ["volumes/db "]),
        ("", "d", "/volumes", ["data/", "db/"]),
        ("", "../al", "/volumes", ["../alus/"]),
        ("/volumes ", "c", "/", ["create "]),
        ("/volumes/db ", "ex", "/", ["expose "]),
        ("/volumes create ", "si", "/", ["size="]),
        ("/volumes create size=1G ", "", "/", ["alus=", "block=", "chunk=", "layout=", "legs=", "max-alus=", "name=",
                                              "pool=", "width="]),
        ("/volumes create layout=", "s", "/", ["stripe ", "stripe-mirror "]),
        ("/volumes create pool=", "", "/", ["fast "]),
        ("/volumes create alus=", "a", "/", ["a0 ", "a1 "]),
        ("/volumes create alus=a0,", "b", "/", ["b0 "]),
        ("/volumes/db expose host=", "w", "/", ["web1 "]),
        ("/volumes/db delete force=", "", "/", ["no ", "yes "]),
        ("/volumes create size=", "", "/", []),
        ("/volumes crate ", "", "/", []),
        ("/nowhere ", "", "/", []),
        ("create nme=", "x", "/volumes", []),
    ],
)  # fmt: skip
def test_what_can_follow_is_offered(before: str, text: str, current: str, offered: list[str]) -> None:
    assert complete(before, text, current, NAMES) == offered


def test_at_the_start_everything_is_offered() -> None:
    offered = complete("", "", "/volumes", NAMES)
    assert {"create ", "list ", "ls ", "help ", "cd ", "exit ", "pwd ", "db/", "data/"} == set(offered)
