"""Every layout and block size, from the command to the bytes on the wire and over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, need, tool

pytestmark = need("qemu-io")

LAYOUTS = {
    "linear": ("alus=a0",),
    "concat": ("alus=a0,a1,a2", "width=3"),
    "stripe": ("alus=a0,a1,a2", "width=3", "chunk=16K"),
    "mirror": ("alus=a0,a1,a2", "legs=3"),
    "stripe-mirror": ("alus=a0,a1,a2,a3", "chunk=128K"),
}
BLOCKS = (512, 4096)
VOLUMES = list(product(LAYOUTS, BLOCKS))
SIZE_MIB = 24


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with one volume of each kind."""
    with appliance(tmp_path_factory.mktemp("layouts") / "a") as found:
        for number in range(4):
            found.say("/alus", "attach", f"path={found.folder}/a{number}.img", "size=1G")
        found.say("/hosts", "create", "name=any", "iqn=*")
        for layout, block in VOLUMES:
            name = f"{layout}-{block}"
            words = (f"name={name}", f"size={SIZE_MIB}M", f"layout={layout}", f"block={block}")
            found.say("/volumes", "create", *words, *LAYOUTS[layout])
            found.say(f"/volumes/{name}", "expose", "host=any")
        yield found


def patterns(seed: int) -> list[tuple[int, int, int]]:
    """Give writes (pattern, offset, length in KiB) that cross chunks, members and their rows, all over the volume."""
    lengths = (4, 1000, 68, 128, 4, 516, 2048)
    return [(seed + n & 0xFF, n * SIZE_MIB * 1024 // 7 // 4 * 4, length) for n, length in enumerate(lengths)]


def io(url: str, verb: str, seed: int) -> str:
    commands = [word for p, at, length in patterns(seed) for word in ("-c", f"{verb} -P {p} {at}k {length}k")]
    said = tool("qemu-io", "-f", "raw", *commands, url)
    assert "failed" not in said, said
    return said


@pytest.mark.parametrize(("layout", "block"), VOLUMES, ids=lambda value: str(value))
def test_what_was_written_is_read_back(running: Appliance, layout: str, block: int) -> None:
    """R7: through all transforms, with both block sizes; what was never written reads as zeros."""
    url = running.url(f"{layout}-{block}")
    seed = VOLUMES.index((layout, block)) * 16 + 1
    io(url, "write", seed)
    io(url, "read", seed)
    assert "failed" not in tool("qemu-io", "-f", "raw", "-c", "read -P 0 23M 512k", url)


def test_everything_is_there_after_a_crash_and_a_restart(running: Appliance) -> None:
    """R3: all volumes come back from the ALUs, each with its own data; URLs stay what they were."""
    urls = {volume: running.url("{}-{}".format(*volume)) for volume in VOLUMES}
    for number, volume in enumerate(VOLUMES):
        io(urls[volume], "write", number * 16 + 5)
    running.kill()
    running.start()
    for number, volume in enumerate(VOLUMES):
        assert running.url("{}-{}".format(*volume)) == urls[volume]
        io(urls[volume], "read", number * 16 + 5)


def test_a_volume_grows_and_keeps_what_it_holds(running: Appliance) -> None:
    """R16 in part: a grown stripe over mirrors is a concatenation; hosts see the new size at their next look."""
    url = running.url("stripe-mirror-512")
    io(url, "write", 77)
    running.say("/volumes/stripe-mirror-512", "grow", f"size={2 * SIZE_MIB}M")
    io(url, "read", 77)
    said = tool("qemu-io", "-f", "raw", "-c", "write -P 9 23M 20M", "-c", "read -P 9 23M 20M", "-c", "length", url)
    assert "failed" not in said
    assert f"{2 * SIZE_MIB} MiB" in said
    running.kill()
    running.start()
    assert "failed" not in tool("qemu-io", "-f", "raw", "-c", "read -P 9 23M 20M", url)


def test_two_appliances_never_open_one_alu(running: Appliance, tmp_path: Path) -> None:
    """R1: the second one is told whose it is, and nothing changes."""
    with appliance(tmp_path / "other") as other:
        done = other.run("/alus", "attach", f"path={running.folder}/a0.img")
        assert done.returncode == 1
        assert "another appliance" in done.stderr
        assert other.say("/alus", "list") == []
