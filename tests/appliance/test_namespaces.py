"""Work in another network namespace."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.namespaces import inside
from backstores.errors import UsageError
from tests.support.appliance import need

NAME = f"tiergate-test-{os.getpid()}"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of this machine's."""
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    yield NAME
    subprocess.run(["ip", "netns", "delete", NAME], check=True)


def interfaces() -> set[str]:
    """List the network interfaces that this thread sees."""
    return {line.split(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]}


@pytest.mark.root
@need("ip")
def test_the_work_is_done_there_and_nobody_else_moves(namespace: str) -> None:
    """R31: what it makes is in that network; this thread stays where it was."""
    before = interfaces()
    assert inside(namespace, interfaces) == {"lo"}
    assert interfaces() == before


def test_no_namespace_is_this_thread() -> None:
    assert inside("", threading.get_ident) == threading.get_ident()


def test_what_the_work_raises_is_raised_here() -> None:
    def fail() -> None:
        raise UsageError("on purpose")

    with pytest.raises(UsageError, match="on purpose"):
        inside("", fail)


def test_a_namespace_that_is_not_there_is_told_with_what_to_type() -> None:
    with pytest.raises(UsageError, match="no network namespace nowhere: type `ip netns add nowhere`"):
        inside("nowhere", interfaces)


@pytest.mark.root
@need("ip")
def test_what_the_work_raises_there_is_raised_here(namespace: str) -> None:
    def fail() -> None:
        raise UsageError("on purpose")

    with pytest.raises(UsageError, match="on purpose"):
        inside(namespace, fail)
