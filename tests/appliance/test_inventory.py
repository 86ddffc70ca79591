"""ALUs as people meet them: what may be attached, claimed and let go, and what is said where it may not (R1, R2)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.inventory import Inventory
from appliance.messages import AluState
from backstores.alu.base import AluError, AluOp
from backstores.alu.memory import MemoryDriver
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.metadata.label import LabelSector, build, new_label
from backstores.metadata.layout import FRONT_LABELS, SMALL
from backstores.metadata.sector import SECTOR_BYTES
from backstores.objects import MIB
from backstores.wwn import new_device_wwn
from tests.support.memory_alus import MemoryEngine
from tests.support.metadata import resealed

SUSID = "ours"
SIZE = 16 * MIB
Scenario = Callable[[Inventory], Awaitable[None]]


def on_files(scenario: Scenario) -> None:
    async def run() -> None:
        async with Engine() as engine:
            await scenario(Inventory(engine, SUSID))

    asyncio.run(run())


def claimed_by(susid: str, path: Path) -> None:
    """Make a file that an appliance has claimed."""

    async def run() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, susid)
            await inventory.attach(str(path), SIZE)
            await inventory.claim(str(path), force=False)

    asyncio.run(run())


def blank(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, SIZE)


def ext4(path: Path) -> None:
    blank(path)
    with path.open("r+b") as handle:
        handle.seek(1080)
        handle.write(b"\x53\xef")


def foreign(path: Path) -> None:
    claimed_by("theirs", path)


def damaged(path: Path) -> None:
    claimed_by(SUSID, path)
    with path.open("r+b") as handle:
        for address in SMALL.regions:
            handle.seek(address)
            handle.write(b"!" * SECTOR_BYTES)


def newer(path: Path) -> None:
    """Make a file with the label of a later version, under a checksum that is right."""
    blank(path)
    label = new_label(new_device_wwn(), SIZE)
    with path.open("r+b") as handle:
        for address in FRONT_LABELS:
            handle.seek(address)
            handle.write(resealed(build(label, address), LabelSector, version=9))


HOLDING = {
    "data": (ext4, AluState.BLANK, "holds data: ext2, ext3 or ext4"),
    "another-appliance": (foreign, AluState.FOREIGN, "claimed by appliance theirs"),
    "damage": (damaged, AluState.DAMAGED, "neither of its object regions can be read"),
}


@pytest.mark.parametrize(("make", "state", "found"), HOLDING.values(), ids=HOLDING)
def test_what_holds_something_is_claimed_by_force_only(
    tmp_path: Path, make: Callable[[Path], None], state: AluState, found: str
) -> None:
    """R2: listed with what it holds, never used, and not a byte changed until a person insists."""
    path = tmp_path / "a.img"
    make(path)
    before = path.read_bytes()

    async def refused(inventory: Inventory) -> None:
        alu = await inventory.attach(str(path))
        assert alu.status().state is state
        assert found in alu.status().detail
        assert inventory.records() == []
        with pytest.raises(UsageError, match=rf"a\.img.*{found}.*force=yes"):
            await inventory.claim(str(path), force=False)

    async def forced(inventory: Inventory) -> None:
        await inventory.attach(str(path))
        alu = await inventory.claim(str(path), force=True)
        assert alu.status().state is AluState.OWNED
        assert alu.wwn in inventory.drivers

    on_files(refused)
    assert path.read_bytes() == before
    on_files(forced)


@pytest.mark.parametrize("force", [False, True], ids=["unforced", "forced"])
def test_what_a_later_release_wrote_is_never_claimed(tmp_path: Path, force: bool) -> None:
    """R2: its version is named."""
    path = tmp_path / "a.img"
    newer(path)
    before = path.read_bytes()

    async def scenario(inventory: Inventory) -> None:
        alu = await inventory.attach(str(path))
        assert alu.status().state is AluState.DAMAGED
        with pytest.raises(UsageError, match="version 9"):
            await inventory.claim(str(path), force)

    on_files(scenario)
    assert path.read_bytes() == before


def test_what_is_owned_is_not_claimed_again(tmp_path: Path) -> None:
    claimed_by(SUSID, tmp_path / "a.img")

    async def scenario(inventory: Inventory) -> None:
        alu = await inventory.attach(str(tmp_path / "a.img"))
        wwn = alu.wwn
        with pytest.raises(UsageError, match="belongs to this appliance already"):
            await inventory.claim(str(tmp_path / "a.img"), force=True)
        assert alu.wwn == wwn

    on_files(scenario)


def copy_of_an_alu(folder: Path) -> Path:
    (folder / "copy.img").write_bytes((folder / "first.img").read_bytes())
    return folder / "copy.img"


def link_to_the_first(folder: Path) -> Path:
    (folder / "link.img").symlink_to(folder / "first.img")
    return folder / "link.img"


def small(folder: Path) -> Path:
    (folder / "small.img").write_bytes(bytes(MIB))
    return folder / "small.img"


REFUSED: dict[str, tuple[Callable[[Path], Path], int | None, str]] = {
    "the-same-path": (lambda folder: folder / "first.img", None, "is attached already"),
    "the-same-file-by-another-name": (link_to_the_first, None, "in use by another appliance"),
    "a-copy": (copy_of_an_alu, None, "is a copy of '.*first.img'"),
    "too-small": (small, None, "an alu of 1048576 bytes: it must have 16777216"),
    "too-small-to-be-made": (lambda folder: folder / "new.img", MIB, "an alu of 1048576 bytes"),
    "a-folder": (lambda folder: folder, None, "is a directory"),
    "nothing": (lambda folder: folder / "none.img", None, "does not exist"),
    "a-file-of-another-size": (lambda folder: folder / "other.img", 32 * MIB, "bytes"),
}


@pytest.mark.parametrize(("make", "size", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_an_alu_is_refused_and_nothing_has_changed(
    tmp_path: Path, make: Callable[[Path], Path], size: int | None, message: str
) -> None:
    """R1: one line; no file is made, and whatever was opened is let go."""
    claimed_by(SUSID, tmp_path / "first.img")
    blank(tmp_path / "other.img")

    async def scenario(inventory: Inventory) -> None:
        await inventory.attach(str(tmp_path / "first.img"))
        path = make(tmp_path)
        there = sorted(tmp_path.iterdir())
        for _ in range(2):  # a lock that was kept would change what is said
            with pytest.raises(UsageError, match=message) as refused:
                await inventory.attach(str(path), size)
            assert "\n" not in str(refused.value)
        assert sorted(tmp_path.iterdir()) == there
        assert len(list(inventory)) == 1

    on_files(scenario)


LOCK = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('locked', flush=True); input()"


def test_an_alu_that_another_appliance_has_open_is_refused(tmp_path: Path) -> None:
    """R1: two appliances never have one ALU open."""
    path = tmp_path / "a.img"
    blank(path)
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()

        async def refused(inventory: Inventory) -> None:
            with pytest.raises(UsageError, match="in use by another appliance"):
                await inventory.attach(str(path))

        on_files(refused)
        other.communicate(b"\n")

    async def attached(inventory: Inventory) -> None:
        await inventory.attach(str(path))

    on_files(attached)


def test_an_alu_that_was_detached_can_be_attached_again(tmp_path: Path) -> None:
    claimed_by(SUSID, tmp_path / "a.img")
    path = str(tmp_path / "a.img")

    async def scenario(inventory: Inventory) -> None:
        wwn = (await inventory.attach(path)).wwn
        await inventory.detach(path)
        assert inventory.drivers == {}
        with pytest.raises(UsageError, match="is not attached"):
            await inventory.detach(path)
        assert (await inventory.attach(path)).wwn == wwn

    on_files(scenario)


def test_an_alu_that_can_not_be_written_is_not_claimed_and_says_why() -> None:
    async def scenario() -> None:
        disk = MemoryDriver(SIZE, path="a0")
        disk.fail(AluOp.WRITE)
        async with MemoryEngine({"a0": disk}) as engine:
            inventory = Inventory(engine, SUSID)
            alu = await inventory.attach("a0")
            with pytest.raises(AluError, match="Input/output error"):
                await inventory.claim("a0", force=False)
            assert alu.status().state is AluState.FAILED
            assert "write at byte" in alu.status().detail
            assert not inventory.complete
            disk.mend()
            await inventory.claim("a0", force=False)
            assert alu.status().state is AluState.OWNED
            assert inventory.complete

    asyncio.run(scenario())


def test_a_blank_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That a file just made has no label is no finding for a person."""

    async def scenario(inventory: Inventory) -> None:
        await inventory.attach(str(tmp_path / "a.img"), SIZE)
        await inventory.claim(str(tmp_path / "a.img"), force=False)

    on_files(scenario)
    assert caplog.messages == []


def test_a_label_copy_that_is_damaged_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    claimed_by(SUSID, tmp_path / "a.img")
    with (tmp_path / "a.img").open("r+b") as handle:
        handle.seek(FRONT_LABELS[0] + 100)
        handle.write(b"!")

    async def scenario(inventory: Inventory) -> None:
        assert (await inventory.attach(str(tmp_path / "a.img"))).owned

    on_files(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_older_copy_is_listed_and_not_used_until_a_person_insists(tmp_path: Path) -> None:
    """R4: what it holds is out of date; claimed by force it is a new ALU, under a new name."""
    path = str(tmp_path / "a.img")
    claimed_by(SUSID, tmp_path / "a.img")

    async def scenario(inventory: Inventory) -> None:
        alu = await inventory.attach(path)
        wwn = alu.wwn
        inventory.set_aside(alu, "an older copy: made yesterday")
        status = alu.status()
        assert (status.state, status.wwn, status.free) == (AluState.STALE, None, ())
        assert "made yesterday" in status.detail
        assert inventory.records() == []
        assert inventory.drivers == {}
        assert not inventory.complete
        with pytest.raises(UsageError, match=r"made yesterday; claim it with force=yes"):
            await inventory.claim(path, force=False)
        claimed = await inventory.claim(path, force=True)
        assert claimed.status().state is AluState.OWNED
        assert claimed.wwn not in (None, wwn)

    on_files(scenario)
