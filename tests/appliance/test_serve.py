"""``tiergate serve``: what it refuses, in one line and with a status, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.mic.store import FILE_NAME
from appliance.reach import address_for_hosts
from appliance.serve import parse
from tests.support.appliance import INITIATOR, TIERGATE, Appliance, appliance, free_port, need, tool
from tests.support.iscsi_client import Client, Closed, SocketChannel, write10

STOP_S = 15  # far more than a stop takes; far less than a host's patience

BAD_OPTIONS = {
    "portal": (["--portal", "localhost:3260"], "numeric address"),
    "the second portal": (["--portal", "127.0.0.1:1", "--portal", "127.0.0.1:0"], "port 0 is not between 1 and 65535"),
    "iqn-with-wildcard": (["--iqn", "iqn.2026-11.example:*"], "a target has one name"),
    "iqn-of-another-kind": (["--iqn", "target"], "target"),
    "susid-empty": (["--susid", ""], "1 to 64 printable ascii characters"),
    "susid-too-long": (["--susid", "x" * 65], "1 to 64 printable ascii characters"),
    "front-end": (["--frontend", "tgt"], "'lio'"),
    "unknown": (["--colour"], "--colour"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_a_bad_option_is_refused_with_what_is_allowed(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "portals"),
    [([], ["0.0.0.0:3260"]), (["--portal", "127.0.0.1:1", "--portal", "a/[::1]:2"], ["127.0.0.1:1", "a/[::1]:2"])],
    ids=["by default", "two"],
)
def test_portals_are_taken_in_their_order(options: list[str], portals: list[str]) -> None:
    assert list(map(str, parse(options).portals)) == portals


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7"])
def test_a_portal_with_an_address_is_told_by_it(address: str) -> None:
    assert address_for_hosts(address) == address


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_portal_on_all_addresses_is_told_by_one_that_this_machine_has(wildcard: str) -> None:
    found = address_for_hosts(wildcard)
    assert found not in ("0.0.0.0", "::")
    family = socket.AF_INET6 if ":" in found else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((found, 0))


# A process that does not start


def refused(state: Path, *options: str) -> str:
    """Start an appliance that must not start: give its one line."""
    line = [TIERGATE, "serve", "--state", str(state), *options]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "ready" not in done.stdout
    [error] = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    return error


def a_file_in_place_of_the_folder(folder: Path) -> tuple[Path, str]:
    (folder / "state").touch()
    return folder / "state", "state folder .* can't be used"


def a_folder_that_nobody_can_write(folder: Path) -> tuple[Path, str]:
    return Path("/proc/tiergate"), "state folder /proc/tiergate can't be used"


def a_database_that_is_none(folder: Path) -> tuple[Path, str]:
    (folder / FILE_NAME).write_bytes(b"not a database, and longer than its header" * 100)
    return folder, "is no database of ours"


def a_database_of_another_version(folder: Path) -> tuple[Path, str]:
    with sqlite3.connect(folder / FILE_NAME) as database:
        database.execute("CREATE TABLE value (key VARCHAR PRIMARY KEY, text VARCHAR NOT NULL)")
        database.execute("INSERT INTO value VALUES ('schema', '99')")
    return folder, "schema version 99"


def a_folder_in_place_of_the_database(folder: Path) -> tuple[Path, str]:
    (folder / FILE_NAME).mkdir()
    return folder, "can't be used|can't be opened"


BROKEN: list[Callable[[Path], tuple[Path, str]]] = [
    a_file_in_place_of_the_folder,
    a_folder_that_nobody_can_write,
    a_database_that_is_none,
    a_database_of_another_version,
    a_folder_in_place_of_the_database,
]


@pytest.mark.parametrize("make", BROKEN, ids=[make.__name__ for make in BROKEN])
def test_a_state_folder_that_can_not_be_used_is_refused(
    tmp_path: Path, make: Callable[[Path], tuple[Path, str]]
) -> None:
    state, message = make(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    assert re.search(message, refused(state, "--portal", f"127.0.0.1:{free_port()}"))
    assert sorted(tmp_path.rglob("*")) == there, "nothing half made"


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """And the appliance starts in the same folder when it is free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path / "a" / "state", "--portal", f"127.0.0.1:{port}")
    assert f"port {port}" in said
    assert "--portal" in said
    with appliance(tmp_path / "a") as running:
        assert running.say("/volumes", "list") == []


def test_a_state_folder_in_use_is_refused_and_the_appliance_in_it_keeps_its_settings(tmp_path: Path) -> None:
    """Above all its target name: hosts know it."""
    with appliance(tmp_path) as running:
        before = running.say("/sps", "status")
        said = refused(running.state, "--portal", f"127.0.0.1:{free_port()}", "--iqn", "iqn.2026-11.example:other")
        assert "runs in" in said
        assert running.stop() == 0
        running.start()
        assert running.say("/sps", "status")[0]["target"] == before[0]["target"]


def test_another_susid_than_that_of_the_settings_is_refused(tmp_path: Path) -> None:
    with appliance(tmp_path) as running:
        running.stop()
        assert "are of appliance TG-" in refused(running.state, "--susid", "another")


# A process that ends


@contextmanager
def begun(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Begin to start an appliance."""
    line = [TIERGATE, "serve", "--state", str(folder / "state"), "--portal", f"127.0.0.1:{free_port()}", *options]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_during_the_start_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """As soon as the process says anything at all, it can be told to end."""
    with begun(tmp_path, "--demo") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=STOP_S)
        assert process.returncode == 0, said
        assert "Traceback" not in said
    with appliance(tmp_path) as running:
        assert running.say("/volumes", "list") in (
            [],
            [v for v in running.say("/volumes", "list") if v["name"] == "demo"],
        )


def login(running: Appliance) -> Client:
    client = Client(SocketChannel(("127.0.0.1", running.port)), INITIATOR)
    client.login(target=running.say("/sps", "status")[0]["target"])
    while client.command(bytes(16)).status:  # unit attentions come first
        pass
    return client


def hung_up(client: Client) -> bool:
    """Say whether the target has ended the connection; an Asynchronous Message may come first."""
    try:
        while True:
            client.receive()
    except Closed:
        return True


def test_a_stop_with_a_host_logged_in_leaves_nothing_to_copy(tmp_path: Path) -> None:
    """D1, D2: what was acknowledged is there, the bitmaps are clean, and the host is told that the target goes."""
    with appliance(tmp_path) as running:
        running.make_volume(size="64M")
        client = login(running)
        assert client.command(write10(0, 8), write=b"k" * 4096).status == 0
        assert running.process is not None
        assert running.stop() == 0
        assert hung_up(client)
        running.start()
        assert running.say("/volumes/v", "info")["state"] == "on line"
        assert "was not stopped cleanly" not in running.log
        client = login(running)
        assert client.command(bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0] + [0] * 6), read=4096).data == b"k" * 4096


def test_a_stop_during_a_resynchronization_ends_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """D2: regions that were not copied yet stay dirty."""
    with appliance(tmp_path) as running:
        url = running.make_volume(size="900M")
        tool("qemu-io", "-f", "raw", *(w for mib in range(0, 896, 64) for w in ("-c", f"write -P 7 {mib}M 4k")), url)
        running.kill()
        running.start()
        assert "copying its dirty regions" in running.log
        assert running.stop() == 0
        assert "Traceback" not in running.log
        running.start()
        while (state := running.say("/volumes/v", "info")["state"]) != "on line":
            assert state == "resynchronizing"


def test_a_first_start_logs_nothing_that_alarms(tmp_path: Path) -> None:
    with appliance(tmp_path, "--demo") as running:
        assert "WARNING" not in running.log
        assert "absent" not in running.log
        running.stop()
        running.start("--demo")
        assert "WARNING" not in running.log


@need("iscsi-ls")
def test_a_portal_on_all_addresses_names_the_one_that_the_host_has_reached(tmp_path: Path) -> None:
    """RFC 7143 appendix C: 0.0.0.0 leads a host nowhere."""
    with appliance(tmp_path) as running:
        running.make_volume(size="64M")
        running.stop()
        running.portals = [f"0.0.0.0:{running.port}"]
        running.start()
        listed = tool("iscsi-ls", "-i", INITIATOR, f"iscsi://127.0.0.1:{running.port}")
        assert f"Portal:127.0.0.1:{running.port}," in listed
        assert "//0.0.0.0" not in running.url()
        assert "Lun:0" in tool("iscsi-ls", "-i", INITIATOR, "--show-luns", f"iscsi://{running.url().split('/')[2]}")


def test_the_help_says_what_each_option_is_for() -> None:
    said = tool(TIERGATE, "serve", "--help")
    for option in ("--state", "--portal", "--database", "--iqn", "--susid", "--demo", "--scan"):
        assert option in said
