"""The VM image: its recipe, its first boot, and QEMU to boot it in (R35)."""
