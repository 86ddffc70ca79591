"""The recipe of the image: its packages, its disk, what is added to Debian (R35)."""

from __future__ import annotations

import configparser
import re
import struct
import tarfile
from pathlib import Path

import pytest

from images import disk
from images.build import SOURCE, overlay_files, write_overlay
from images.packages import Wanted, differences, installed_in, read_lock, read_wanted, write_lock
from images.tools import PROJECT, RECIPE, ImageError, run

# Packages


def test_packages_for_building_alone_are_told_from_those_that_stay() -> None:
    text = "# a heading\n\nlinux-image-amd64  # with LIO\npython3\ngcc   # build\n"
    assert read_wanted(text) == Wanted(("linux-image-amd64", "python3"), ("gcc",))


def test_every_package_that_stays_is_recorded_with_its_version() -> None:
    wanted = read_wanted((RECIPE / "packages.txt").read_text())
    locked = read_lock((RECIPE / "packages.lock").read_text())
    assert set(wanted.kept) <= set(locked)
    assert not set(wanted.build) & set(locked)
    assert all(locked.values())


def test_a_record_goes_round() -> None:
    versions = {"b": "1:2.0-1=x", "a": "1"}
    assert write_lock(versions) == "a=1\nb=1:2.0-1=x\n"
    assert read_lock(write_lock(versions)) == versions


def test_what_differs_is_told_line_by_line() -> None:
    assert differences({"a": "1", "b": "1", "gone": "1"}, {"a": "1", "b": "2", "new": "3"}) == [
        "b: 1 -> 2",
        "gone: 1 -> not installed",
        "new: not recorded -> 3",
    ]


def test_what_dpkg_has_removed_is_not_installed(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: a\nStatus: install ok installed\nVersion: 1.0-1\nDescription: text\n more: text\n\n"
        "Package: b\nStatus: deinstall ok config-files\nVersion: 2\n"
    )
    assert installed_in(tmp_path) == {"a": "1.0-1"}


def test_every_dependency_of_the_appliance_is_pinned_by_version_and_hash() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(PROJECT / "setup.cfg")
    needed = {re.split("[>=<]", line)[0] for line in configuration["options"]["install_requires"].split()}
    lines = [line for line in (RECIPE / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {line.partition("==")[0] for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert needed <= pinned


# What is added


def test_the_overlay_belongs_to_root_and_names_the_root_file_system(tmp_path: Path) -> None:
    """Whoever builds, with whatever umask."""
    target = tmp_path / "overlay.tar"
    write_overlay(target, {"@ROOT_UUID@": "the-uuid"}, tmp_path)
    with tarfile.open(target) as archive:
        entries = {entry.name: entry for entry in archive}
        assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}
        assert {entry.mode for entry in entries.values()} == {0o644, 0o755}
        for name in ("etc/fstab", "boot/grub/grub.cfg", f"{SOURCE}/find-root.cfg"):
            content = archive.extractfile(name)
            assert content is not None
            text = content.read().decode()
            assert "the-uuid" in text
            assert "@" not in text
    assert "etc/systemd/system/tiergate.service" in entries
    assert "usr/lib/tiergate/console.py" in entries


def test_what_installs_the_appliance_is_added_and_nothing_that_was_built_here(tmp_path: Path) -> None:
    added = [file for name, file in overlay_files(tmp_path) if name.startswith(f"{SOURCE}/tiergate/")]
    assert PROJECT / "backstores/engine/_ring.pyx" in added
    assert PROJECT / "setup.py" in added
    assert not [file for file in added if file.suffix in {".so", ".c", ".pyc"}]


def test_there_is_no_password_and_no_key_in_the_recipe() -> None:
    for _, file in overlay_files(RECIPE / "none"):
        assert b"PRIVATE KEY" not in file.read_bytes()
    names = {name for name, _ in overlay_files(RECIPE / "none")}
    assert not names & {"etc/shadow", "etc/passwd", "root/.ssh/authorized_keys"}


# The disk


def test_grub_is_told_where_its_second_part_lies() -> None:
    """From grub-2.06: boot.img has the first sector of core.img, whose first sector has the list of the others."""
    core = bytes(range(256)) * 10  # five sectors
    boot, patched = disk.patched(bytes(512), core)
    assert struct.unpack_from("<Q", boot, 0x5C) == (2048,)
    assert struct.unpack_from("<QH", patched, 500) == (2049, 4)
    assert len(patched) == len(core)
    assert (patched[:500], patched[510:]) == (core[:500], core[510:])


@pytest.mark.parametrize("sectors", [2, 2.5, 2048], ids=["whole", "broken", "all-there-is-room-for"])
def test_the_rest_of_grub_is_counted_in_whole_sectors(sectors: float) -> None:
    _, core = disk.patched(bytes(512), bytes(int(sectors * 512)))
    assert struct.unpack_from("<H", core, 508) == (-(-sectors // 1) - 1,)


def test_the_partitions_lie_behind_each_other() -> None:
    ends = [
        (disk.BIOS_START, disk.BIOS_SECTORS),
        (disk.EFI_START, disk.EFI_SECTORS),
        (disk.ROOT_START, disk.ROOT_SECTORS),
    ]
    at = 34  # behind the table
    for start, sectors in ends:
        assert start >= at
        assert start % disk.MIB_SECTORS == 0
        at = start + sectors
    assert at <= disk.DISK_SECTORS - 33  # before the second table


# Tools


def test_a_tool_that_fails_says_why() -> None:
    with pytest.raises(ImageError, match=r"(?s)sh failed with status 3:\nno luck"):
        run(["sh", "-c", "echo no luck >&2; exit 3"])


def test_a_tool_reads_what_it_is_given() -> None:
    assert run(["cat"], "text") == "text"
