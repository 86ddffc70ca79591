"""The client's end of the management socket."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from appliance.mic.commands import CommandError
from appliance.mic.protocol import LINE_LIMIT, SOCKET_NAME
from appliance.mic.views import untold
from cli.client import Client, Unreachable

PROGRESS = b'{"progress":{"text":"half","done":1,"total":2}}\n'


class Scripted:
    """An appliance that gives one prepared answer a connection."""

    def __init__(self, state: Path, answers: list[bytes]) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(state / SOCKET_NAME))
        self._listener.listen()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._answer, args=(answers,), daemon=True)
        self._thread.start()

    def _answer(self, answers: list[bytes]) -> None:
        for answer in answers:
            connection, _ = self._listener.accept()
            connection.recv(65536)
            connection.sendall(answer)
            self._held.append(connection)

    def close(self) -> None:
        """End it, with all its connections."""
        self._thread.join(20)
        for connection in (*self._held, self._listener):
            connection.close()


def test_the_answer_to_an_interrupted_command_is_never_taken_for_the_next_ones(tmp_path: Path) -> None:
    def interrupted(_text: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    appliance = Scripted(tmp_path, [PROGRESS + b'{"ok":"old"}\n', b'{"ok":"new"}\n'])
    client = Client(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        client.call("/", "ls", {}, interrupted)
    assert client.call("/", "ls", {}, untold) == "new"
    client.close()
    appliance.close()


@pytest.mark.parametrize("answer", [b"no json\n", b'{"ok":\n', b'{"progress":7}\n'], ids=["text", "half", "mistyped"])
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes) -> None:
    appliance = Scripted(tmp_path, [answer])
    with pytest.raises(Unreachable, match="ended before it answered"):
        Client(tmp_path).call("/", "ls", {}, untold)
    appliance.close()


def test_a_command_past_the_limit_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"more than {LINE_LIMIT}"):
        Client(tmp_path).call("/", "apply", {"file": "x" * LINE_LIMIT}, untold)


@pytest.mark.parametrize("folder", ["none", "file", "file/below"])
def test_where_no_appliance_is_the_way_to_start_one_is_told(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match=f"no appliance runs in {tmp_path}/{folder}; start one with `tiergate serve"):
        Client(tmp_path / folder).call("/", "ls", {}, untold)
