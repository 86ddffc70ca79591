"""Two appliances never have one ALU open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backstores.alu.opening import open_alu
from backstores.errors import UsageError

MIB = 1 << 20
NAMES: dict[str, Callable[[Path, Path], None]] = {
    "hard-link": lambda real, name: os.link(real, name),
    "symbolic-link": lambda real, name: name.symlink_to(real),
}


@pytest.mark.parametrize("name", NAMES)
def test_one_process_twice_by_another_name(tmp_path: Path, name: str) -> None:
    """R1: the lock goes by file, not by path."""
    real = tmp_path / "alu"
    driver = open_alu(str(real), size_bytes=MIB)
    NAMES[name](real, tmp_path / "again")
    for path in (real, tmp_path / "again"):
        with pytest.raises(UsageError, match=f"{path} is in use by another appliance"):
            open_alu(str(path))
    driver.close()
    open_alu(str(tmp_path / "again")).close()


def test_another_process(tmp_path: Path) -> None:
    """R1: a second appliance is refused; when the first dies, by kill -9 even, its lock dies with it."""
    path = tmp_path / "alu"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from backstores.alu.opening import open_alu;"
            "driver = open_alu(sys.argv[1], size_bytes=1 << 20); print('ready', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(UsageError, match="is in use by another appliance"):
            open_alu(str(path), size_bytes=2 * MIB, grow=True)
        assert path.stat().st_size == MIB
        holder.kill()
    open_alu(str(path)).close()


def test_close_twice_closes_once(tmp_path: Path) -> None:
    """The second close does not touch the number that another file has got meanwhile."""
    driver = open_alu(str(tmp_path / "alu"), size_bytes=MIB)
    driver.close()
    other = os.open(tmp_path / "alu", os.O_RDONLY)
    driver.close()
    os.fstat(other)
    os.close(other)
