"""``tiergate metadata`` on ALUs in files, as a person types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from backstores.alu.file import open_file
from cli.main import main
from tests.support.small_alu import small_alu, stored

GOLDEN = Path(__file__).parents[1] / "fixtures" / "dump.txt"


@pytest.fixture
def alu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ALU in a file of the current folder."""
    monkeypatch.chdir(tmp_path)
    stored(small_alu(), tmp_path / "a.img")
    return Path("a.img")


def digest(path: Path) -> str:
    """Tell one content from another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_dump_reads_like_this(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R1-R4: every structure of an ALU, as a person reads it."""
    assert main(["metadata", "dump", str(alu)]) == 0
    assert capsys.readouterr().out == GOLDEN.read_text()


def test_a_dump_is_there_as_data(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R34: JSON output."""
    assert main(["metadata", "dump", "--json", str(alu)]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["ownership"] == "owned"
    assert found["structures"][0]["fields"]["size_bytes"] == 16 << 20


@pytest.mark.parametrize("command", ["dump"])
def test_looking_writes_not_one_byte(alu: Path, command: str) -> None:
    before = digest(alu), alu.stat().st_mtime_ns
    main(["metadata", command, str(alu)])
    assert (digest(alu), alu.stat().st_mtime_ns) == before


@pytest.mark.parametrize("command", ["dump"])
def test_an_alu_that_an_appliance_has_is_refused(alu: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    driver = open_file(str(alu))
    try:
        assert main(["metadata", command, str(alu)]) == 1
    finally:
        driver.close()
    assert "is in use by another appliance" in capsys.readouterr().err
