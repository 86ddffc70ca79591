"""The main job, by the tools that people use: a real disk image goes in, survives a crash, and comes out."""

from __future__ import annotations

import filecmp
import random
import subprocess
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, appliance, need, tool

IMAGE_MIB = 200
FILES = 3000

pytestmark = [need("qemu-img", "mke2fs", "e2fsck"), pytest.mark.slow]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 image with some thousand files."""
    folder = tmp_path_factory.mktemp("image")
    chance = random.Random(1)
    for number in range(FILES):
        path = folder / "tree" / f"{number % 40}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice([0, 100, 5000, 40_000])))
    image = folder / "ext4.img"
    tool("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", image, f"{IMAGE_MIB}M")
    return image


def write_image(image: Path, url: str) -> None:
    tool("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url)


def read_image(url: str, into: Path) -> Path:
    """Read a whole volume, and keep as much of it as the image has."""
    tool("qemu-img", "convert", "-f", "raw", "-O", "raw", url, into)
    with into.open("r+b") as handle:
        handle.truncate(IMAGE_MIB << 20)
    return into


def test_an_image_survives_a_kill_in_the_middle_of_the_next_one(tmp_path: Path, image: Path) -> None:
    """R7, R32, R33: qemu-img writes a file system, the appliance is killed while another is written beside it,
    starts again, finds its volumes on the ALUs, and what was there is there."""
    with appliance(tmp_path / "a") as running:
        first = running.make_volume("first")
        second = running.make_volume("second")
        write_image(image, first)
        writing = subprocess.Popen(
            ["qemu-img", "convert", "-p", "-n", "-f", "raw", "-O", "raw", str(image), second],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert writing.stdout is not None
        while b"(1" not in writing.stdout.read(8):  # past ten per cent
            assert writing.poll() is None, "the image was written before the kill"
        running.kill()
        writing.kill()
        writing.communicate()

        running.start()
        assert {v["name"] for v in running.say("/volumes", "list")} == {"first", "second"}
        back = read_image(first, tmp_path / "back.img")
        assert filecmp.cmp(image, back, shallow=False)
        tool("e2fsck", "-fn", back)
        await_resync(running, "second")
        write_image(image, second)
        assert filecmp.cmp(image, read_image(second, tmp_path / "back2.img"), shallow=False)


def await_resync(running: Appliance, volume: str) -> None:
    """Wait until the legs are equal; the status says so, and how far it is."""
    while (found := running.say(f"/volumes/{volume}", "info"))["state"] != "on line":
        assert found["state"] == "resynchronizing", found


def test_both_legs_of_each_mirror_hold_the_same_after_a_crash(tmp_path: Path, image: Path) -> None:
    """D2: after an unclean stop the legs are made equal."""
    with appliance(tmp_path / "a") as running:
        url = running.make_volume("v")
        write_image(image, url)
        running.kill()
        running.start()
        await_resync(running, "v")
        assert running.stop() == 0
        contents = [(running.folder / f"v-a{n}.img").read_bytes()[9 << 20 : 100 << 20] for n in range(4)]
        assert contents[0] == contents[1]
        assert contents[2] == contents[3]
        assert contents[0] != contents[2]


def test_volumes_are_found_again_when_the_database_is_lost(tmp_path: Path, image: Path) -> None:
    """R3, C4: the definitions of volumes live on the ALUs; an export brings back the rest."""
    with appliance(tmp_path / "a") as running:
        write_image(image, running.make_volume("v"))
        susid = running.say("/sps", "status")[0]["susid"]
        site = tmp_path / "site.yaml"
        site.write_text(running.run("export").stdout)
        running.stop()
        for path in running.state.glob("tiergate.db*"):
            path.unlink()
        running.start("--susid", susid)
        said = running.run("apply", str(site))
        assert said.returncode == 0, said.stderr
        assert "volume v was found on its ALUs" in said.stdout
        assert filecmp.cmp(image, read_image(running.url("v"), tmp_path / "back.img"), shallow=False)
        assert "nothing to change" in running.run("apply", str(site)).stdout
