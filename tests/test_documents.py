"""The documents say what is so: dependencies, paths, links, and commands that can be typed."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.mic.values import DOCUMENT
from appliance.serve import parse
from cli import words
from cli.help import show_help

PROJECT = Path(__file__).parent.parent
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])
PACKAGES = ("backstores", "appliance", "cli")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|pyx|md|cfg|toml|sh))`")
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?(.*)")
ELSEWHERE = ("/", ".venv/", "var/", "benchmarks/results/")  # what a document names and a clone does not hold
MADE_LATER = frozenset(
    {"backstores/transforms/readonly.py", "tests/backstores/transforms/test_readonly.py"}
)  # by whoever follows CONTRIBUTING.md


def text_of(name: str) -> str:
    """Read a document."""
    return (PROJECT / name).read_text()


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of all table rows under a heading, without the tables' heads."""
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            yield [cell.strip("`") for cell in cells]


def commands(name: str) -> Iterator[str]:
    """Yield the lines that a document's shell blocks tell a person to type."""
    for block in re.findall(r"^```sh\n(.*?)^```", text_of(name), re.DOTALL | re.MULTILINE):
        yield from block.splitlines()


TYPED = [line for line in commands("README.md") if line.startswith("tiergate ")]


def normal(requirement: str) -> tuple[str, str]:
    """Split a requirement into the package's name and its range."""
    match = REQUIREMENT.fullmatch(requirement)
    assert match, requirement
    return match[1], match[2]


def declared() -> dict[str, str]:
    """Collect what setup.cfg and pyproject.toml require, with the ranges."""
    configuration = configparser.ConfigParser()
    configuration.read(PROJECT / "setup.cfg")
    lists = [configuration["options"]["install_requires"], *configuration["options.extras_require"].values()]
    build = tomllib.loads(text_of("pyproject.toml"))["build-system"]["requires"]
    return dict(normal(line) for line in [*"\n".join(lists).split("\n"), *build] if line.strip())


def test_every_dependency_is_justified_with_its_range() -> None:
    assert {name: versions for name, versions, *_ in rows(text_of("ARCHITECTURE.md"), "Dependencies")} == declared()


def test_every_range_of_what_the_appliance_needs_has_an_end() -> None:
    """The next major release of a dependency must not break an installation made today."""
    configuration = configparser.ConfigParser()
    configuration.read(PROJECT / "setup.cfg")
    needed = configuration["options"]["install_requires"].split()
    assert needed
    assert all(">=" in requirement and ",<" in requirement for requirement in needed)


def test_every_package_has_a_row_in_the_layout() -> None:
    listed = {path for path, *_ in rows(text_of("ARCHITECTURE.md"), "Layout")}
    found = {
        init.parent.relative_to(PROJECT).as_posix()
        for package in PACKAGES
        for init in (PROJECT / package).rglob("__init__.py")
    }
    assert found - listed == set(), "a new package: give it a row under Layout in ARCHITECTURE.md"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_that_a_document_names_exists(name: str) -> None:
    named = {path for path in PATH.findall(text_of(name)) if "/" in path and not path.startswith(ELSEWHERE)}
    assert named, "the pattern finds nothing any more"
    assert [path for path in sorted(named - MADE_LATER) if not (PROJECT / path).exists()] == []


def test_every_path_in_the_layout_exists() -> None:
    listed = [path for path, *_ in rows(text_of("ARCHITECTURE.md"), "Layout")]
    assert len(listed) > 20
    assert [path for path in listed if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        file, _, anchor = target.partition("#")
        if ":" in file:
            continue  # on the network: not for a test to ask
        linked = document.parent / file if file else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("line", TYPED)
def test_every_command_of_the_readme_can_be_typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R34: path, command, parameters and values are those of the table of commands."""
    monkeypatch.setattr(words, "LOCALIZERS", {**words.LOCALIZERS, DOCUMENT: str})  # site.yaml is not there
    _, *rest = shlex.split(line.split(" > ")[0])
    if rest[0] == "serve":
        assert parse(rest[1:]).portals
    elif rest[0] == "help":
        show_help(rest[1:], json=False)
    else:
        words.command_line(rest)


def test_the_readme_shows_commands_of_every_kind() -> None:
    assert len(TYPED) > 15


def test_make_knows_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    named = {
        target for name in ("README.md", "CONTRIBUTING.md") for target in re.findall(r"`make (\w+)", text_of(name))
    }
    assert {"run", "test", "check"} <= named <= targets
