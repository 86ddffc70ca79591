"""``tiergate metadata`` on ALUs in files, as a person types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from appliance import offline
from backstores.alu.file import open_file
from backstores.metadata.layout import GS_POINTER_ADDRESSES, MDR_ADDRESSES, SMALL, label_addresses, table_addresses
from cli.main import main
from tests.support.metadata import SIZE, SUSID, flipped
from tests.support.small_alu import changed, small_alu, stored, three_alus

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


def break_copies(path: Path) -> None:
    """Damage one copy of the label, of the MDR directory and of the partition table."""
    with path.open("r+b") as file:
        for address in (label_addresses(SIZE)[2], MDR_ADDRESSES[0], table_addresses(SIZE)[1]):
            file.seek(address + 90)
            file.write(b"\xff\xfe\xfd")


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


@pytest.mark.parametrize("command", ["dump", "check", "repair"])
def test_looking_writes_not_one_byte(alu: Path, command: str) -> None:
    """Nor does a repair that nobody has said yes to."""
    break_copies(alu)
    before = digest(alu), alu.stat().st_mtime_ns
    main(["metadata", command, str(alu)])
    assert (digest(alu), alu.stat().st_mtime_ns) == before


@pytest.mark.parametrize("command", ["dump", "check", "repair", "repair --yes"])
def test_an_alu_that_an_appliance_has_is_refused(alu: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    driver = open_file(str(alu))
    try:
        assert main(["metadata", *command.split(), str(alu)]) == 1
    finally:
        driver.close()
    assert "is in use by another appliance" in capsys.readouterr().err


def test_what_is_whole_has_no_problems(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metadata", "check", str(alu)]) == 0
    assert capsys.readouterr().out == "no problems\n"


def test_each_problem_is_a_line_with_its_address(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_copies(alu)
    assert main(["metadata", "check", str(alu)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": damaged")[0] for line in lines] == [
        "a.img: label at byte 16769024",
        "a.img: MDR directory at byte 12288",
        "a.img: partition table at byte 6291456",
    ]


def test_problems_are_there_as_data(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R34: JSON output."""
    break_copies(alu)
    assert main(["metadata", "check", "--json", str(alu)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["clean"], found["susid"], len(found["problems"])) == (False, SUSID, 3)


def test_a_repair_is_told_and_then_done(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R1: copies are written again from the good ones; then nothing is wrong any more."""
    break_copies(alu)
    assert main(["metadata", "repair", str(alu)]) == 1
    todo = "a.img: write labels and MDR directory and partition table again"
    assert capsys.readouterr().out == f"to be done with --yes: {todo}\n"
    assert main(["metadata", "repair", "--yes", str(alu)]) == 0
    assert capsys.readouterr().out == f"done: {todo}\nno problems are left\n"
    assert main(["metadata", "check", str(alu)]) == 0


def test_objects_and_the_gs_set_are_repaired_over_several_alus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R3, R4: what the other ALUs have is put back; every ALU is as good as any then."""
    monkeypatch.chdir(tmp_path)
    first, second, third = three_alus()
    first = changed(first, lambda metadata: metadata.commit(metadata.objects[1:], metadata.epoch))
    second = flipped(second, GS_POINTER_ADDRESSES[0] + 90)
    images = {"a.img": first, "b.img": second, "c.img": third}
    paths = [stored(image, tmp_path / name).name for name, image in images.items()]
    assert main(["metadata", "check", *paths]) == 1
    assert main(["metadata", "repair", "--yes", *paths]) == 0
    assert "done: write the GS set again to its members" in capsys.readouterr().out
    assert main(["metadata", "check", *paths]) == 0


def test_an_object_region_is_written_again(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R3: the objects are in two places again, and the same."""
    before = offline.dumped([str(alu)])[0]
    with alu.open("r+b") as file:
        file.seek(SMALL.regions[0] + 90)
        file.write(b"\xff")
    assert main(["metadata", "repair", "--yes", str(alu)]) == 0
    assert "done: a.img: write the object region at byte 1048576 again" in capsys.readouterr().out
    after = {one.name: one for one in offline.dumped([str(alu)])[0].structures}
    last = [one for one in before.structures if one.name.startswith("object region B")][-1]
    assert after["object region A"].standing == "live"
    assert last.fields["objects"] == after["object region A"].fields["objects"]
    assert main(["metadata", "check", str(alu)]) == 0


def test_the_bitmaps_of_a_mirror_are_made_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D2: all that a damaged bitmap could have said is dirty on both legs then, as after a start."""
    monkeypatch.chdir(tmp_path)
    first, *others = three_alus()
    images = dict(zip(("a.img", "b.img", "c.img"), (flipped(first, (9 << 20) + 200), *others), strict=True))
    paths = [stored(image, tmp_path / name).name for name, image in images.items()]
    assert main(["metadata", "repair", "--yes", *paths]) == 0
    assert "done: a.img: write 1 dirty-region bitmap again" in capsys.readouterr().out
    assert main(["metadata", "check", *paths]) == 0
    assert "1 of 1 regions are dirty: the next start copies them" in capsys.readouterr().out
    for path in paths[:2]:
        assert main(["metadata", "dump", path]) == 0
        assert "dirty 1, which 0" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_not_made(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metadata", "repair", "--yes", "b.img"]) == 1
    assert "b.img does not exist" in capsys.readouterr().err
    assert not Path("b.img").exists()


def test_what_belongs_to_another_appliance_is_left(alu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R2: a foreign ALU is named, and not a byte of it is written."""
    break_copies(alu)
    before = digest(alu)
    assert main(["metadata", "repair", "--yes", "--susid=another", str(alu)]) == 0
    assert "foreign: claimed by appliance tiergate-test" in capsys.readouterr().out
    assert digest(alu) == before


def test_a_repair_that_the_disk_does_not_take_ends(
    alu: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector must not keep it going for ever, nor be told as repaired."""

    async def in_vain(*_: object) -> None:
        """Change nothing, as a disk does that has lost a sector."""

    break_copies(alu)
    monkeypatch.setattr(offline, "_carry_out", in_vain)
    assert main(["metadata", "repair", "--yes", str(alu)]) == 1
    assert capsys.readouterr().out.startswith("nothing was repaired\nleft: a.img: label at byte 16769024")
