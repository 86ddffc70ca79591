"""``make image``: Debian with the appliance in it, as a qcow2 that BIOS and UEFI boot.

    python -m images.build [--mirror URL] [--lock tell|strict|write]

Python packages are fetched here, by their hashes, and kept for the next time; mmdebstrap makes the tree and runs
``install.sh`` in it, then the tree becomes a disk. Nothing is mounted, and no device is made: fakeroot remembers whose
each file is, so that a user can build as well as root.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from backstores.errors import TiergateError
from images.disk import Tree, make_disk
from images.packages import Lock, differences, installed_in, read_lock, read_wanted, write_lock
from images.tools import BUILD, IMAGE, KERNEL, PROJECT, RECIPE, WHEELS, ImageError, need, run

SUITE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org"
ARCHIVES: Final = (("debian", SUITE), ("debian", f"{SUITE}-updates"), ("debian-security", f"{SUITE}-security"))
LIMIT_BYTES: Final = 700 << 20
SOURCE: Final = "usr/src/tiergate"  # what install.sh installs, and removes
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LEFT_OUT: Final = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*/*")
SOURCE_SUFFIXES: Final = frozenset({".py", ".pyi", ".pyx", ".typed"})
TOOLS: Final = ("fakeroot", "mcopy", "mkfs.vfat", "mke2fs", "mmdebstrap", "qemu-img", "sfdisk")


def main(argv: Sequence[str]) -> int:
    """Build the image, and give the exit status."""
    parser = argparse.ArgumentParser(prog="make image", description="Build the VM image.")
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help="where debian/ and debian-security/ are")
    parser.add_argument(
        "--lock",
        type=Lock,
        choices=list(Lock),
        default=Lock.TELL,
        help="where Debian has other versions than images/packages.lock: tell, fail, or record them",
    )
    options = parser.parse_args(list(argv))
    try:
        build(options.mirror, options.lock)
    except TiergateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(mirror: str, lock: Lock) -> None:
    """Make the image, step by step.

    Raises:
        ImageError: a step failed.
    """
    need(*TOOLS)
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        work = Path(folder)
        work.chmod(0o755)  # without root, mmdebstrap is somebody else
        _build(work, mirror, lock)


def _build(work: Path, mirror: str, lock: Lock) -> None:
    root_uuid = str(uuid.uuid4())
    _tell("fetching Python packages")
    wheels = _fetch_wheels(work / "wheels")
    overlay, packed, raw = work / "overlay.tar", work / "root.tar", work / "tiergate.raw"
    write_overlay(overlay, {"@ROOT_UUID@": root_uuid}, wheels)
    _tell(f"installing Debian {SUITE} and the appliance: some minutes")
    run(_mmdebstrap(mirror, overlay, packed))
    _tell("making the disk")
    tree = Tree(work / "root", work / "owners")
    tree.root.mkdir()
    run([*tree.saving, "tar", "--extract", "--numeric-owner", "--file", str(packed), "--directory", str(tree.root)])
    _check_packages(installed_in(tree.root), lock)
    make_disk(raw, tree, root_uuid)
    _compress(raw, work / IMAGE.name)
    shutil.copyfile(tree.root / "vmlinuz", KERNEL)


def write_overlay(target: Path, values: Mapping[str, str], wheels: Path) -> None:
    """Pack what goes into the image beside Debian's packages; ``values`` stand in for words like ``@ROOT_UUID@``."""
    with tarfile.open(target, "w") as archive:
        for name, file in sorted(overlay_files(wheels)):
            content = file.read_bytes()
            if file.is_relative_to(RECIPE):
                for word, value in values.items():
                    content = content.replace(word.encode(), value.encode())
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), int(file.stat().st_mtime)
            entry.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644  # whatever the umask of the clone was
            archive.addfile(entry, io.BytesIO(content))


def overlay_files(wheels: Path) -> Iterator[tuple[str, Path]]:
    """Yield the place in the image and the file here of all that is added."""
    for file in (RECIPE / "root").rglob("*"):
        if file.is_file():
            yield str(file.relative_to(RECIPE / "root")), file
    yield "etc/systemd/system/tiergate.service", PROJECT / "packaging/tiergate.service"
    yield "usr/lib/tiergate/console.py", RECIPE / "console.py"
    for name in ("install.sh", "requirements.txt", "find-root.cfg"):
        yield f"{SOURCE}/{name}", RECIPE / name
    for wheel in wheels.glob("*.whl"):
        yield f"{SOURCE}/wheels/{wheel.name}", wheel
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        yield f"{SOURCE}/tiergate/{name}", PROJECT / name
    for package in ("appliance", "backstores", "cli"):
        for file in (PROJECT / package).rglob("*"):
            if file.suffix in SOURCE_SUFFIXES:
                yield f"{SOURCE}/tiergate/{file.relative_to(PROJECT)}", file


def _fetch_wheels(wheels: Path) -> Path:
    """Gather what requirements.txt names, for the image's Python and not for this one.

    What was downloaded is kept, so that a second build needs no network but Debian's mirror.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    command += ["--requirement", str(RECIPE / "requirements.txt")]
    offline = [*command, "--no-index", "--find-links", str(WHEELS), "--dest", str(wheels)]
    WHEELS.mkdir(exist_ok=True)
    try:
        run(offline)
    except ImageError:  # one is not there yet, or is another than the one that is pinned
        run([*command, "--dest", str(WHEELS)])
        run(offline)
    return wheels


def _mmdebstrap(mirror: str, overlay: Path, target: Path) -> list[str]:
    """Give the command that makes the tree: the overlay comes before the packages that it configures."""
    wanted = read_wanted((RECIPE / "packages.txt").read_text())
    sources = [f"deb {mirror}/{archive} {suite} main" for archive, suite in ARCHIVES]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(wanted.kept + wanted.build)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Acquire::Languages "none"',
        "--aptopt=Acquire::Check-Valid-Until false",  # a mirror of an earlier day is as good as today's
        f"--essential-hook=tar-in {overlay} /",
        f'--customize-hook=chroot "$1" sh /{SOURCE}/install.sh {" ".join(wanted.build)}',
        SUITE,
        str(target),
        *sources,
    ]


def _check_packages(installed: Mapping[str, str], lock: Lock) -> None:
    """Compare what is installed with what is recorded.

    Raises:
        ImageError: it differs, and was to be the same.
    """
    file = RECIPE / "packages.lock"
    (BUILD / "packages").write_text(write_lock(installed))
    if lock is Lock.WRITE:
        file.write_text(write_lock(installed))
        return
    found = differences(read_lock(file.read_text()), installed)
    if not found:
        _tell(f"{len(installed)} packages, as recorded in images/packages.lock")
        return
    told = "\n    ".join([f"{len(found)} packages differ from images/packages.lock:", *found])
    if lock is Lock.STRICT:
        raise ImageError(f"{told}\nRecord them by `make image LOCK=write`, or take a mirror of that day by MIRROR=URL")
    _tell(told)


def _compress(raw: Path, fresh: Path) -> None:
    """Make the image of a raw disk; the one that was there stays until then."""
    run(["qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(fresh)])
    size_bytes = fresh.stat().st_size
    if size_bytes > LIMIT_BYTES:
        raise ImageError(f"the image has {size_bytes >> 20} MiB, more than {LIMIT_BYTES >> 20}: look for what came in")
    fresh.replace(IMAGE)
    _tell(f"{IMAGE.relative_to(PROJECT)}: {size_bytes >> 20} MiB")


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
