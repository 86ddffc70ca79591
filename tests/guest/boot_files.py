"""What QEMU boots: Debian's own kernel, unpacked and not installed, and a first file system that mounts the host's.

    python -m tests.guest.boot_files        makes build/guest-kernel where it is missing

The package comes by ``apt-get download``, which takes no rights. The kernel is quicker to start when uncompressed, so
it is cut out of the image that the package has (Documentation/x86/boot.rst of Linux). The first file system is
a static busybox, the modules that 9p takes, and a script of four lines. It ends by starting TIERGATE_PYTHON
with TIERGATE_INIT, both named on the kernel's command line, in the host's tree.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backstores.wire import Bits, Wire

PROJECT: Final = Path(__file__).parents[2]
FOLDER: Final = PROJECT / "build" / "guest-kernel"
KERNEL: Final = FOLDER / "vmlinux"
INITRAMFS: Final = FOLDER / "initramfs"
MODULES: Final = FOLDER / "lib" / "modules"
PACKAGE: Final = "linux-image-amd64"  # depends on the newest one
TREE_MODULES: Final = ("9p", "9pnet_virtio", "virtio_pci")
TREE_TAG: Final = "tree"
BUSYBOX: Final = "busybox"
SECTOR_BYTES: Final = 512

INIT: Final = f"""\
#!/{BUSYBOX} sh
for module in {{modules}}; do /{BUSYBOX} insmod /$module; done
/{BUSYBOX} mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose {TREE_TAG} /host
/{BUSYBOX} mount -t devtmpfs none /host/dev
exec /{BUSYBOX} switch_root /host "$TIERGATE_PYTHON" "$TIERGATE_INIT"
"""


class SetupHeader(Wire, size=0x250, order="little"):
    """The beginning of a bzImage, of which we need where the compressed kernel lies."""

    setup_sectors = Bits(byte=0x1F1, width=8, doc="without the boot sector")
    payload_at = Bits(byte=0x248, width=32, doc="from the end of the setup")
    payload_bytes = Bits(byte=0x24C, width=32)


def uncompressed(image: bytes) -> bytes:
    """Cut the kernel out of a bzImage. Debian compresses with xz; behind that lies the length."""
    header = SetupHeader.parse(image)
    begin = (1 + header.setup_sectors) * SECTOR_BYTES + header.payload_at
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[begin : begin + header.payload_bytes])


def said(*command: str, where: Path | None = None) -> str:
    """Run a command that must succeed, and give what it prints."""
    return subprocess.run(command, cwd=where, check=True, stdout=subprocess.PIPE, text=True).stdout


def fetch(folder: Path) -> None:
    """Unpack the kernel's package into a folder."""
    depends = said("apt-cache", "depends", "--important", PACKAGE)
    [name] = re.findall(r"Depends: (linux-image-[\w.+-]+)", depends)[:1]
    said("apt-get", "--quiet", "download", name, where=folder)
    [package] = folder.glob("*.deb")
    said("dpkg", "--extract", str(package), str(folder))
    package.unlink()


def module_files(folder: Path, release: str) -> list[Path]:
    """List the files of the modules that the host's tree takes, in the order in which they are loaded."""
    said("depmod", "--basedir", str(folder), release)
    lines = [
        said("modprobe", "--dirname", str(folder), "--set-version", release, "--show-depends", module)
        for module in TREE_MODULES
    ]
    return [Path(path) for path in dict.fromkeys(re.findall(r"^insmod (\S+)", "".join(lines), re.MULTILINE))]


def write_initramfs(folder: Path, modules: Sequence[Path], target: Path) -> None:
    """Pack busybox, modules and the script into an archive that the kernel unpacks."""
    root = folder / "root"
    (root / "host").mkdir(parents=True)
    busybox = shutil.which(BUSYBOX)
    assert busybox, "looked for before"
    shutil.copy(busybox, root / BUSYBOX)
    for module in modules:
        shutil.copy(module, root / module.name)
    (root / "init").write_text(INIT.format(modules=" ".join(module.name for module in modules)))
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = subprocess.run(
        (BUSYBOX, "cpio", "--create", "--format", "newc"),
        input=names.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        check=True,
    )
    target.write_bytes(archive.stdout)
    shutil.rmtree(root)


def make() -> None:
    """Make the folder, in one step for those who look."""
    FOLDER.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as name:
        folder = Path(name)
        fetch(folder)
        [image] = folder.glob("boot/vmlinuz-*")
        release = image.name.removeprefix("vmlinuz-")
        write_initramfs(folder, module_files(folder, release), folder / INITRAMFS.name)
        (folder / KERNEL.name).write_bytes(uncompressed(image.read_bytes()))
        for rest in ("boot", "usr"):
            shutil.rmtree(folder / rest)
        folder.chmod(0o755)
        folder.rename(FOLDER)
        folder.mkdir()  # for the context to remove


if __name__ == "__main__" and not FOLDER.exists():
    make()
