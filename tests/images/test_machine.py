"""QEMU's command line, and what is said when the machine can't be (R35)."""

from __future__ import annotations

import base64
import os
import socket
from pathlib import Path

import pytest

from images import boot, machine, tools
from images.machine import Accelerator, Machine, check_port, uefi, usable
from images.tools import ImageError

KEY = "ssh-ed25519 AAAAC3 somebody@here"


def command(**how: object) -> str:
    """Give a machine's command line as one text."""
    parts = {"system": Path("/x/system"), "data": (Path("/x/d1"), Path("/x/d2")), "portal_port": 3260, **how}
    return " ".join(Machine(**parts).command())  # type: ignore[arg-type]


def test_the_disks_have_serial_numbers_and_the_system_is_started() -> None:
    """R6: in the guest they have names that don't change."""
    line = command()
    assert "drive=system,serial=system,bootindex=0" in line
    assert "drive=data1,serial=data1 " in line
    assert "drive=data2,serial=data2 " in line
    assert line.count("bootindex") == 1


def test_the_portal_is_forwarded_from_loopback_alone_and_ssh_only_if_asked() -> None:
    assert "user,id=net,hostfwd=tcp:127.0.0.1:3299-:3260 " in command(portal_port=3299)
    assert "hostfwd=tcp:127.0.0.1:2222-:22 " in command(ssh_port=2222)


def test_a_key_is_handed_over_as_a_credential() -> None:
    value = command(ssh_key=KEY).partition("ssh.authorized_keys.root=")[2]
    assert base64.b64decode(value).decode() == f"{KEY}\n"
    assert "smbios" not in command()


def test_the_code_of_the_firmware_is_not_written_and_its_variables_are() -> None:
    line = command(firmware=(Path("/code"), Path("/vars")))
    assert "readonly=on,file=/code " in line
    assert "readonly=off,file=/vars " in line
    assert "pflash" not in command()


def test_a_comma_in_a_path_is_no_option() -> None:
    assert "file=/x,,readonly=on" in command(system=Path("/x,readonly=on"))


@pytest.mark.parametrize("wanted", [Accelerator.KVM, Accelerator.TCG])
def test_an_accelerator_that_was_named_is_taken(wanted: Accelerator) -> None:
    assert usable(wanted)[0] is wanted
    assert f"-accel {wanted}" in command(accelerator=wanted)


@pytest.mark.parametrize(
    ("there", "boots", "chosen"),
    [(False, True, Accelerator.TCG), (True, False, Accelerator.TCG), (True, True, Accelerator.KVM)],
    ids=["no-device", "kernel-hangs", "works"],
)
def test_kvm_is_taken_where_a_kernel_boots_under_it(
    monkeypatch: pytest.MonkeyPatch, there: bool, boots: bool, chosen: Accelerator
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: there)
    monkeypatch.setattr(machine, "_kvm_boots", lambda _: boots)
    assert usable(Accelerator.AUTO)[0] is chosen


@pytest.mark.parametrize(
    ("script", "boots"),
    [("exit 0", True), ("exit 1", False), ("kill -6 $$", False), ("read line </dev/zero", False)],
    ids=["ends", "refuses", "aborts", "hangs"],
)
def test_a_kernel_has_booted_when_qemu_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, boots: bool
) -> None:
    """A kernel that hangs under /dev/kvm never gets to the panic that ends it."""
    fake = tmp_path / "qemu"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(machine, "QEMU", str(fake))
    monkeypatch.setattr(machine, "PROBE_S", 1)
    assert machine._kvm_boots(Path("/vmlinuz")) is boots


# What is said when something is missing


def refusal(monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Give the line with which `make boot` refuses."""
    monkeypatch.setattr(boot, "need", lambda *_: None)
    with pytest.raises(ImageError) as refused:
        boot.prepare(boot.parse(options))
    return str(refused.value)


def test_without_qemu_the_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PATH", "/nowhere")
    with pytest.raises(ImageError, match=r"qemu-system-x86_64: not installed; type `scripts/setup\.sh image`"):
        tools.need(machine.QEMU)


def test_without_an_image_the_line_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "IMAGE", tmp_path / "none.qcow2")
    assert "no image yet" in (said := refusal(monkeypatch, "--folder", str(tmp_path)))
    assert "type `make image`" in said


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something that can be copied as an image is."""
    path = tmp_path / "image.qcow2"
    path.write_bytes(b"an image")
    monkeypatch.setattr(boot, "IMAGE", path)
    monkeypatch.setattr(boot, "make_data_disk", lambda path, _: path)
    return path


def test_a_port_that_is_taken_is_named_and_another_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(monkeypatch, "--folder", str(tmp_path), "--port", str(port))
        assert f"port {port} of 127.0.0.1 can't be used (Address already in use)" in said
        assert f"make boot PORT={port + 1}" in said
    check_port(port, "PORT")


def test_a_key_that_can_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    assert "No such file" in refusal(monkeypatch, "--folder", str(tmp_path), "--key", str(tmp_path / "id.pub"))


def test_the_firmware_s_variables_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OVMF", tmp_path / "ovmf")
    with pytest.raises(ImageError, match="apt-get install ovmf"):
        uefi(tmp_path)
    (tmp_path / "ovmf").mkdir()
    for name in machine.FIRMWARE:
        (tmp_path / "ovmf" / name).write_text(name)
    _, own = uefi(tmp_path)
    own.write_text("set up")
    assert uefi(tmp_path)[1].read_text() == "set up"


def test_a_machine_keeps_its_disk_when_the_image_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says so: a person may want the new one."""
    monkeypatch.setattr(boot, "need", lambda *_: None)
    monkeypatch.setattr(boot, "check_port", lambda *_: None)
    options = boot.parse(["--folder", str(tmp_path / "boot"), "--accel", "tcg"])
    first, _ = boot.prepare(options)
    assert first.system.read_bytes() == b"an image"
    assert capsys.readouterr().out == ""
    image.write_bytes(b"a newer image")
    os.utime(image, (first.system.stat().st_mtime + 60,) * 2)
    assert boot.prepare(options)[0].system.read_bytes() == b"an image"
    assert "older image; delete it" in capsys.readouterr().out
