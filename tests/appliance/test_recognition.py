"""What is on an ALU before it is claimed: told by ``blkid``, whatever that answers (R2)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance.inventory import Inventory
from appliance.messages import AluState
from appliance.recognition import ask_blkid, names, recognize_nothing
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.objects import MIB
from tests.support.appliance import TOOLS_PATH, need
from tests.support.memory_alus import blank_disks, started

SIZE = 64 * MIB


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (b"DEVNAME=e\nTYPE=ext4\nUSAGE=filesystem\n", ["ext4 file system"]),
        (b"TYPE=LVM2_member\nUSAGE=raid\n", ["LVM2_member (part of an array or volume group)"]),
        (b"TYPE=crypto_LUKS\nUSAGE=crypto\n", ["crypto_LUKS (encrypted)"]),
        (b"TYPE=swap\nUSAGE=other\n", ["swap"]),
        (b"PTTYPE=gpt\n", ["GPT partition table"]),
        (b"PTTYPE=dos\nTYPE=vfat\n", ["vfat", "MBR partition table"]),
        (b"PTTYPE=sgi\n", ["sgi partition table"]),
        (b"", []),
        (b"TYPE=\x1b[2J\nPTTYPE=" + b"x" * 33, []),
        (b"TYPE\n=ext4\nUSAGE=filesystem", []),
        (b"TYPE=\xff\xfe", []),
    ],
    ids=["ext4", "lvm", "luks", "swap", "gpt", "both", "other-table", "nothing", "control", "no-pair", "no-ascii"],
)
def test_the_answer_in_words(output: bytes, found: Sequence[str]) -> None:
    """S3: a disk may have been written to deceive; nothing but plain words is passed on."""
    assert list(names(output)) == found


def program(folder: Path, text: str) -> str:
    file = folder / "blkid"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


@pytest.mark.parametrize(
    ("text", "found", "logged"),
    [
        ("echo TYPE=ext4", ["ext4"], ""),
        ("exit 2", [], ""),
        ("exit 8", ["several things at once"], ""),
        ("exit 4", [], "ended with 4"),
        ("kill -9 $$", [], "ended with -9"),
        ("exec sleep 1000", [], "took more than 0.2 s"),
    ],
    ids=["found", "nothing", "ambivalent", "usage", "killed", "hangs"],
)
def test_however_the_program_ends(
    text: str, found: Sequence[str], logged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C3: a disk that does not answer holds nothing up."""
    timeout_s = 0.2 if "sleep" in text else 60.0
    assert list(asyncio.run(ask_blkid("/dev/null", program(tmp_path, text), timeout_s))) == found
    assert logged in caplog.text
    assert bool(caplog.records) is bool(logged)


def test_a_program_that_can_not_be_run_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(ask_blkid("/dev/null", str(tmp_path / "none"))) == ()
    assert "No such file" in caplog.text


def test_a_path_that_looks_like_an_option_is_none(tmp_path: Path) -> None:
    asked = program(tmp_path, f'echo "$@" > {tmp_path}/words')
    asyncio.run(ask_blkid("--version", asked))
    assert (tmp_path / "words").read_text().strip().endswith("-- --version")


def test_without_the_program_the_table_of_signatures_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_more: None)
    assert asyncio.run(ask_blkid("/dev/null")) == ()
    assert asyncio.run(recognize_nothing("/dev/null")) == ()


MAKERS = {
    "ext4": (["mke2fs", "-q", "-t", "ext4"], None, "ext4 file system"),
    "gpt": (["sfdisk", "-q"], "label: gpt\nsize=10M\n", "GPT partition table"),
    "mbr": (["sfdisk", "-q"], "label: dos\nsize=10M\n", "MBR partition table"),
    "swap": (["mkswap", "-q"], None, "swap"),
}


@need("blkid", "mke2fs", "sfdisk", "mkswap")
@pytest.mark.parametrize(("words", "told", "found"), MAKERS.values(), ids=MAKERS)
def test_what_the_system_makes_is_named_and_never_lost_unasked(
    words: list[str], told: str | None, found: str, tmp_path: Path
) -> None:
    """R2: listed with what is on it, refused by that name, claimed by force."""
    path = tmp_path / "disk"
    path.touch(0o600)
    os.truncate(path, SIZE)
    found_by = {**os.environ, "PATH": TOOLS_PATH}
    subprocess.run([*words, str(path)], input=told, text=True, check=True, capture_output=True, env=found_by)

    async def scenario() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, "ours", ask_blkid)
            alu = await inventory.attach(str(path))
            assert alu.status().detail == f"holds data: {found}"
            with pytest.raises(UsageError, match=f"holds data: {found}; claim it with force=yes"):
                await inventory.claim(str(path), force=False)
            await inventory.claim(str(path), force=True)
            assert alu.status().state is AluState.OWNED

    asyncio.run(scenario())


async def some(_path: str) -> Sequence[str]:
    return ["something", "else"]


def test_zeros_where_we_look_are_data_if_something_is_found(tmp_path: Path) -> None:
    """R2: our look is short; a claim of what only looks blank would lose it."""
    path = tmp_path / "disk"

    async def scenario() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, "ours", some)
            await inventory.attach(str(path), SIZE)
            with pytest.raises(UsageError, match="holds data: something, else"):
                await inventory.claim(str(path), force=False)

    asyncio.run(scenario())


@need("blkid")
def test_data_of_an_unknown_kind_is_data(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\0" * 4096 + b"what may this be?")
    os.truncate(path, SIZE)

    async def scenario() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, "ours", ask_blkid)
            await inventory.attach(str(path))
            with pytest.raises(UsageError, match="holds data: of an unknown kind"):
                await inventory.claim(str(path), force=False)

    asyncio.run(scenario())


def test_of_another_appliance_it_is_told_how_many_volumes_would_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    """R2: a foreign SUSID, and what a claim by force would take from its appliance."""
    caplog.set_level(logging.ERROR)

    async def scenario() -> None:
        disks = blank_disks()
        async with started(disks) as found:
            await found.volumes.create(found.tree())
            await found.volumes.close()
            theirs = Inventory(found.engine, "another", some)
            alu = await theirs.attach("a0")
            assert alu.status().state is AluState.FOREIGN
            assert "it holds parts of 1 volume, something, else" in alu.status().detail

    asyncio.run(scenario())


def test_what_is_ours_is_not_asked_for(tmp_path: Path) -> None:
    asked: list[str] = []

    async def note(path: str) -> Sequence[str]:
        asked.append(path)
        return ()

    async def scenario() -> None:
        async with Engine() as engine:
            inventory = Inventory(engine, "ours", note)
            path = str(tmp_path / "disk")
            await inventory.attach(path, SIZE)
            await inventory.claim(path, force=False)
            await inventory.detach(path)
            await inventory.attach(path)
            assert asked == [path]

    asyncio.run(scenario())
