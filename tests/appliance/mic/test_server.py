"""The management API on its UNIX socket (S4, R14)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from appliance.mic.management import Management
from appliance.mic.operations import Dispatcher
from appliance.mic.protocol import LINE_LIMIT, SOCKET_NAME
from appliance.mic.server import CREDENTIALS, LOCK_NAME, MOST_CONNECTIONS, ApiServer, StateLock
from backstores.errors import UsageError
from tests.support.fake_sp import FakeSp, MemoryStore
from tests.support.management import running


@contextmanager
def connection(state: Path) -> Iterator[socket.socket]:
    """Connect to the appliance of a state folder."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(20)
        peer.connect(str(state / SOCKET_NAME))
        yield peer


def talk(state: Path, *lines: bytes | dict[str, Any]) -> list[dict[str, Any]]:
    """Send lines, then say that no more come, and give all the answers."""
    with connection(state) as peer, peer.makefile("rb") as answers:
        for line in lines:
            peer.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        peer.shutdown(socket.SHUT_WR)
        return [json.loads(answer) for answer in answers]


def request(path: str, command: str, /, **args: object) -> dict[str, Any]:
    """Make a request."""
    return {"id": 1, "path": path, "command": command, "args": args}


ATTACH = request("/alus", "attach", path="/x/a0.img", size="1G")


def test_a_command_is_answered_with_its_id_and_its_outcome(tmp_path: Path) -> None:
    """R14: the outcome is told to who asked."""
    with running(tmp_path):
        attached, listed = talk(tmp_path, {**ATTACH, "id": "one"}, {**request("/alus", "list"), "id": 2})
    assert (attached["id"], attached["ok"]["changed"]) == ("one", True)
    assert (listed["id"], listed["ok"][0]["name"]) == (2, "a0")


def test_a_long_command_shows_progress_before_its_outcome(tmp_path: Path) -> None:
    """C2."""
    with running(tmp_path):
        answers = talk(tmp_path, ATTACH, request("/volumes", "create", name="v", size=1048576))
    assert [next(iter(answer.keys() - {"id"})) for answer in answers] == ["ok", "progress", "progress", "ok"]
    assert answers[1]["progress"]["total"] == 2


@pytest.mark.parametrize(
    ("line", "kind", "named"),
    [
        (b"nonsense\n", "command", "this is no request"),
        (b"\n", "command", "this is no request"),
        (b"[]\n", "command", "this is no request"),
        (b"\xff\xfe\n", "command", "this is no request"),
        (b"[" * 100_000 + b"\n", "command", "this is no request"),
        ({"path": "/"}, "command", "missing required field `command`"),
        ({"path": "/", "command": "ls", "arguments": {}}, "command", "unknown field `arguments`"),
        ({"path": "/", "command": "ls", "args": {"a": None}}, "command", "$.args"),
        (request("/volumes", "crate"), "command", "no command 'crate'"),
        (request("/volumes", "create", name="v", size="10X"), "command", "'10X'"),
        (request("/volumes/none", "info"), "usage", "there is no volume none"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_line_is_answered_and_the_next_one_is_heard(
    tmp_path: Path, line: bytes | dict[str, Any], kind: str, named: str
) -> None:
    with running(tmp_path):
        refused, answered = talk(tmp_path, line, request("/sps", "status"))
    assert refused["error"]["kind"] == kind
    assert named in refused["error"]["message"]
    assert "\n" not in refused["error"]["message"]
    assert "ok" in answered


def test_a_line_past_the_limit_is_refused_and_ends_the_connection(tmp_path: Path) -> None:
    """S3: all lengths are bounded."""
    with running(tmp_path), connection(tmp_path) as peer, peer.makefile("rb") as answers:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may hang up while we are still sending
            peer.sendall(b"x" * (2 * LINE_LIMIT + 2))
        assert f"longer than {LINE_LIMIT} bytes" in json.loads(answers.readline())["error"]["message"]


def test_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    """S4: mode 0600, whatever the umask; CVE-2020-10699 was a socket of mode 0666."""
    umask = os.umask(0)
    try:
        with running(tmp_path):
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {SOCKET_NAME: 0o600, "tiergate.lock": 0o600}


def test_a_peer_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: the kernel says who is at the other end, and only our user and root may talk."""
    monkeypatch.setattr("appliance.mic.server.os.geteuid", lambda: 12345)
    monkeypatch.setattr("appliance.mic.server.ROOT", 54321)
    with running(tmp_path) as sp:
        (answer,) = talk(tmp_path, ATTACH)
        assert (
            answer["error"]["message"] == f"user {os.getuid()} may not manage this appliance; user 12345 and root may"
        )
        assert sp.calls == ["bring_on_line"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_not_even_connect() -> None:
    """S4, with a real other user: a process forked before the appliance's threads are there."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        state.chmod(0o755)
        waits, wakes = os.pipe()
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            os.read(waits, 1)
            refused = socket.socket(socket.AF_UNIX).connect_ex(str(state / SOCKET_NAME))
            os._exit(refused)
        with running(state):
            os.write(wakes, b"!")
            _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EACCES


def test_more_connections_than_the_limit_are_refused(tmp_path: Path) -> None:
    with running(tmp_path):
        held = [socket.socket(socket.AF_UNIX) for _ in range(MOST_CONNECTIONS)]
        for peer in held:
            peer.connect(str(tmp_path / SOCKET_NAME))
            peer.sendall(json.dumps(request("/sps", "status")).encode() + b"\n")
            assert b"ok" in peer.recv(4096)
        (refused,) = talk(tmp_path, request("/sps", "status"))
        assert refused["error"]["message"] == f"{MOST_CONNECTIONS} connections are open already"
        for peer in held:
            peer.close()


def test_a_dead_appliances_socket_is_replaced(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / SOCKET_NAME))
    dead.close()
    with running(tmp_path):
        assert "ok" in talk(tmp_path, request("/sps", "status"))[0]
    assert not (tmp_path / SOCKET_NAME).exists()


def test_a_second_appliance_in_one_state_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with running(tmp_path):
        second = ApiServer(Dispatcher(Management(MemoryStore(), FakeSp())), tmp_path)
        with pytest.raises(UsageError, match=rf"an appliance runs in .* already \(process {os.getpid()}\)"):
            asyncio.run(second.start())
        assert "ok" in talk(tmp_path, request("/sps", "status"))[0]


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """S2: the lock is written to, and so would be whatever the link leads to."""
    (victim := tmp_path / "victim").write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to(victim)
    with pytest.raises(UsageError, match="can't be used: Too many levels of symbolic links"):
        StateLock(tmp_path)
    assert victim.read_text() == "precious"


def test_a_state_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    server = ApiServer(Dispatcher(Management(MemoryStore(), FakeSp())), tmp_path / "none")
    with pytest.raises(UsageError, match="none can't be used: No such file"):
        asyncio.run(server.start())


def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than 107"):
        ApiServer(Dispatcher(Management(MemoryStore(), FakeSp())), tmp_path / ("x" * 100))


def test_an_error_of_ours_is_told_as_such_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: FakeSp) -> list[object]:
        raise ZeroDivisionError("the inside")

    monkeypatch.setattr(FakeSp, "volumes", broken)
    with running(tmp_path):
        failed, answered = talk(tmp_path, request("/volumes", "list"), request("/sessions", "list"))
    assert failed["error"]["kind"] == "internal"
    assert "the inside" not in failed["error"]["message"]
    assert "ZeroDivisionError" in caplog.text
    assert answered["ok"] == []


def test_credentials_are_as_the_kernel_gives_them() -> None:
    ours, _ = socket.socketpair()
    raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    assert CREDENTIALS.unpack(raw) == (os.getpid(), os.geteuid(), os.getegid())
