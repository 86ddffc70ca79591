"""The disk of the image: a GPT that BIOS and UEFI both start from, made without mounting anything.

    sector 0       GRUB's boot.img, which loads core.img, round the protective MBR
    partition 1    BIOS boot: GRUB's core.img as it is
    partition 2    EFI system: GRUB for UEFI, at the place where firmware looks unasked
    partition 3    the root file system, which both of them read grub.cfg from

Where ``grub-install`` asks devices, the two places that tell where core.img lies are filled in here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from images.tools import run

SECTOR_BYTES: Final = 512
MIB_SECTORS: Final = (1 << 20) // SECTOR_BYTES
DISK_SECTORS: Final = 4096 * MIB_SECTORS
BIOS_START: Final = 1 * MIB_SECTORS
BIOS_SECTORS: Final = 1 * MIB_SECTORS
EFI_START: Final = 2 * MIB_SECTORS
EFI_SECTORS: Final = 16 * MIB_SECTORS
ROOT_START: Final = EFI_START + EFI_SECTORS
ROOT_SECTORS: Final = DISK_SECTORS - ROOT_START - 1 * MIB_SECTORS  # the last sectors are the second table's

BOOT_CODE_BYTES: Final = 440  # what follows in sector 0 is the MBR's: disk signature and partitions
KERNEL_SECTOR: Final = (0x5C, "<Q")  # in boot.img: the first sector of core.img (GRUB_BOOT_MACHINE_KERNEL_SECTOR)
BLOCK_LIST: Final = (SECTOR_BYTES - 12, "<QH")  # in core.img: where the rest of it starts, and its sectors

SFDISK: Final = f"""\
label: gpt
first-lba: 34
start={BIOS_START}, size={BIOS_SECTORS}, type=21686148-6449-6E6F-744E-656564454649, name="BIOS boot"
start={EFI_START}, size={EFI_SECTORS}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI system"
start={ROOT_START}, size={ROOT_SECTORS}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name="Tiergate root"
"""
# GRUB 2.06 reads what is listed here; a mke2fs newer than it would add more by itself.
EXT4_FEATURES: Final = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of the root file system, and fakeroot's record of whose they are."""

    root: Path
    owners: Path

    @property
    def saving(self) -> list[str]:
        """What to put before the command that unpacks it."""
        return ["fakeroot", "-s", str(self.owners), "--"]

    @property
    def seeing(self) -> list[str]:
        """What to put before a command that shall see whose the files are."""
        return ["fakeroot", "-i", str(self.owners), "--"]


def make_disk(disk: Path, tree: Tree, root_uuid: str) -> None:
    """Make a raw disk of a tree that has GRUB's parts in ``boot/grub``."""
    with disk.open("wb") as file:
        file.truncate(DISK_SECTORS * SECTOR_BYTES)
    run(["sfdisk", "--quiet", str(disk)], SFDISK)
    grub = tree.root / "boot/grub"
    _put_bios(disk, (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes())
    _put_efi(disk, grub / "bootx64.efi")
    _put_root(disk, tree, root_uuid)


def patched(boot: bytes, core: bytes) -> tuple[bytes, bytes]:
    """Tell GRUB's two parts for BIOS where the second one lies."""
    assert len(boot) == SECTOR_BYTES
    assert SECTOR_BYTES < len(core) <= BIOS_SECTORS * SECTOR_BYTES
    rest_sectors = -(-(len(core) - SECTOR_BYTES) // SECTOR_BYTES)
    return _with(boot, KERNEL_SECTOR, BIOS_START), _with(core, BLOCK_LIST, BIOS_START + 1, rest_sectors)


def _with(image: bytes, place: tuple[int, str], *values: int) -> bytes:
    offset, layout = place
    changed = bytearray(image)
    struct.pack_into(layout, changed, offset, *values)
    return bytes(changed)


def _put_bios(disk: Path, boot: bytes, core: bytes) -> None:
    boot, core = patched(boot, core)
    with disk.open("r+b") as file:
        file.write(boot[:BOOT_CODE_BYTES])
        file.seek(BIOS_START * SECTOR_BYTES)
        file.write(core)


def _put_efi(disk: Path, loader: Path) -> None:
    offset = EFI_START * SECTOR_BYTES
    kib = EFI_SECTORS * SECTOR_BYTES // 1024
    run(["mkfs.vfat", "-F", "16", "--offset", str(EFI_START), "-n", "EFI", str(disk), str(kib)])
    mtools = ["-i", f"{disk}@@{offset}"]
    run(["mmd", *mtools, "::/EFI", "::/EFI/BOOT"])
    run(["mcopy", *mtools, str(loader), "::/EFI/BOOT/BOOTX64.EFI"])


def _put_root(disk: Path, tree: Tree, root_uuid: str) -> None:
    features = ["-t", "ext4", "-O", EXT4_FEATURES, "-U", root_uuid, "-L", "tiergate", "-m", "1"]
    place = ["-E", f"offset={ROOT_START * SECTOR_BYTES},lazy_itable_init=0", "-d", str(tree.root)]
    run([*tree.seeing, "mke2fs", "-q", "-F", *features, *place, str(disk), f"{ROOT_SECTORS // 2}k"])
