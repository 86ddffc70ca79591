"""Which disks of a machine are looked at (R2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.discovery import Disk, find_disks

PCI = "devices/pci0000:00/0000:00:05.0"


@dataclass
class Machine:
    """Folders as sysfs and udev make them."""

    root: Path

    def add(self, name: str, place: str = f"{PCI}/virtio2", links: tuple[str, ...] = (), **attributes: int) -> None:
        """Plug a disk in; without a ``place`` it is made by software."""
        home = self.root / (f"{place}/block" if place else "devices/virtual/block") / name
        home.mkdir(parents=True)
        for attribute, value in {"size": 2048, "ro": 0, "removable": 0, **attributes}.items():
            (home / attribute).write_text(f"{value}\n")
        if place:
            (home / "device").symlink_to(self.root / place)
        for folder, target in [(self.root / "block", home), (self.root / "dev", None)]:
            folder.mkdir(exist_ok=True)
            (folder / name).symlink_to(target) if target else (folder / name).touch()
        for link in links:
            path = self.root / "dev/disk" / link
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(self.root / "dev" / name)

    def disks(self) -> list[Disk]:
        """Ask."""
        return list(find_disks(self.root / "block", self.root / "dev"))

    def names(self) -> list[str]:
        """Ask for the names alone."""
        return [disk.name for disk in self.disks()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_disks_are_found_in_the_order_of_their_names(machine: Machine) -> None:
    for name in ("vdb", "vda", "nvme0n1"):
        machine.add(name, place=f"{PCI}/{name}")
    assert machine.names() == ["nvme0n1", "vda", "vdb"]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("loop0", {"place": ""}),
        ("dm-0", {"place": ""}),
        ("md0", {"place": ""}),
        ("vdb", {"size": 0}),
        ("vdb", {"ro": 1}),
        ("sr0", {"removable": 1}),
        ("sdb", {"place": "devices/platform/host3/session1/target3:0:0/3:0:0:0"}),
        ("sdb", {"place": "devices/tcm_loop_0/tcm_loop_adapter_0/host4/target4:0:1/4:0:1:0"}),
    ],
    ids=["loop", "mapper", "array", "empty", "read-only", "removable", "over-iscsi", "lio-loopback"],
)
def test_what_is_not_meant_is_left_out(machine: Machine, name: str, how: dict[str, object]) -> None:
    machine.add("sda", place=f"{PCI}/ata1")
    machine.add(name, **how)  # type: ignore[arg-type]
    assert machine.names() == ["sda"]


@pytest.mark.parametrize(
    ("links", "best"),
    [
        ((), ""),
        (("by-path/pci-0000:00:05.0",), "by-path/pci-0000:00:05.0"),
        (("by-path/pci-0000:00:05.0", "by-id/virtio-data1"), "by-id/virtio-data1"),
        (("by-id/ata-WDC_1", "by-id/wwn-0x5000c5", "by-path/pci-0"), "by-id/wwn-0x5000c5"),
        (("by-id/nvme-Samsung_1", "by-id/nvme-eui.0025"), "by-id/nvme-eui.0025"),
    ],
    ids=["none", "place", "serial", "wwn", "nvme"],
)
def test_the_path_is_the_name_that_lasts_longest(machine: Machine, links: tuple[str, ...], best: str) -> None:
    """R6: names that the kernel gives are transient."""
    machine.add("vdb", links=links)
    [disk] = machine.disks()
    assert disk.path == str(machine.root / "dev" / (f"disk/{best}" if best else "vdb"))
    assert disk.device == str(machine.root / "dev/vdb")


def test_a_partition_s_name_is_not_taken_for_the_disk_s(machine: Machine) -> None:
    machine.add("vdb", links=("by-id/virtio-data1",))
    (machine.root / "dev/vdb1").touch()
    (machine.root / "dev/disk/by-id/virtio-data0-part1").symlink_to(machine.root / "dev/vdb1")
    assert machine.disks()[0].path.endswith("by-id/virtio-data1")


def test_a_machine_without_disks_has_none(machine: Machine) -> None:
    assert machine.names() == []
