"""``tiergate sp --join``: what it takes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.identity import Identity
from appliance.processes.join import join, parse
from appliance.processes.keys import FOLDER, ensure_keys
from appliance.processes.system import Settings
from appliance.processes.words import Child
from backstores.errors import UsageError

WHO = Identity("TG-1", "iqn.2026-11.example:tiergate")
TOPOLOGY = "sps: [{name: sp1}, {name: sp2, elsewhere: true, addresses: {int1: 192.0.2.7}}]"


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """A command line that lacks nothing."""
    ensure_keys(tmp_path, ["sp1", "sp2"], WHO)
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    return [
        f"--state={tmp_path}",
        f"--topology={tmp_path / 't.yaml'}",
        f"--key={tmp_path / FOLDER / 'sp2.key'}",
        "--join=192.0.2.1,[2001:db8::1],192.0.2.3:4000",
    ]


def test_the_vcm_is_looked_for_where_it_was_told(line: list[str]) -> None:
    assert parse(line).vcm == ("192.0.2.1:3261", "[2001:db8::1]:3261", "192.0.2.3:4000")
    assert parse([*line, "--port=5000"]).vcm[0] == "192.0.2.1:5001"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--join=somewhere", "numeric address"),
        ("--join=", "numeric address"),
        ("--topology=/nowhere", "topology /nowhere can't be read"),
        ("--port=0", "port 0 is not between"),
        ("--colour", "--colour"),
    ],
)
def test_a_bad_option_is_refused(
    line: list[str], change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*line, change])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def never(settings: Settings, child: Child) -> None:
    raise AssertionError("it must not come so far")


def test_the_key_of_one_that_runs_beside_the_vcm_is_refused(line: list[str], tmp_path: Path) -> None:
    """There would be two of that name."""
    options = parse([*line, f"--key={tmp_path / FOLDER / 'sp1.key'}"])
    with pytest.raises(UsageError, match="is that of sp1, which does not join from elsewhere; the topology has sp2"):
        join(options, never)
