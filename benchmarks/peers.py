"""The targets that are compared, each started afresh on files whose cache is filled and locked alike."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import CDLL, c_int, c_long, c_size_t, c_void_p, get_errno
from pathlib import Path

from benchmarks.load import Endpoint, Work, load

SLACK = 32 << 20  # of an ALU: its metadata, bitmaps, and the tail


def free_port() -> int:
    """Find a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def locked_in_memory(paths: Sequence[Path]) -> Iterator[None]:
    """Keep all pages of some files in the page cache: some machines evict it on their own, and lie by up to 3x."""
    libc = CDLL(None, use_errno=True)
    libc.mmap.restype = c_void_p
    libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
    libc.mlock.argtypes = libc.munmap.argtypes = [c_void_p, c_size_t]
    held: list[tuple[int, int]] = []
    try:
        for path in paths:
            with path.open("r+b") as handle:
                size = path.stat().st_size
                address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle.fileno(), 0)
                held.append((address, size))
                if libc.mlock(address, size):
                    raise OSError(get_errno(), f"mlock of {path}: raise the limit with ulimit -l unlimited")
        yield
    finally:
        for address, size in held:
            libc.munmap(address, size)


def fill(path: Path, size_bytes: int) -> None:
    """Write a file whole, in small pieces: large ones make large folios, and those make small writes slow later."""
    piece = os.urandom(4096)
    with path.open("r+b" if path.exists() else "wb", buffering=0) as handle:
        for offset in range(0, size_bytes, len(piece)):
            os.pwrite(handle.fileno(), piece, offset)
        os.fsync(handle.fileno())


@contextmanager
def tgt(folder: Path, size_bytes: int) -> Iterator[Endpoint]:
    """Run Debian's tgtd on one file, with its rdwr backing store."""
    path, port, target = folder / "tgt.img", free_port(), "iqn.2026-11.example.peer:tgt"
    fill(path, size_bytes)
    control = ["--control-port", str(os.getpid() % 30000 + 1000)]
    tgtd = shutil.which("tgtd") or "/usr/sbin/tgtd"
    process = subprocess.Popen(
        [tgtd, "--foreground", *control, "--iscsi", f"portal=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def admin(*words: str) -> None:
        subprocess.run(["tgtadm", *control, "--lld", "iscsi", *words], check=True, capture_output=True)

    try:
        _wait_for(port)
        admin("--op", "new", "--mode", "target", "--tid", "1", "-T", target)
        admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(path), "--bstype", "rdwr")
        admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        with locked_in_memory([path]):
            yield Endpoint("tgt, one file", port, target, 1, process.pid)
    finally:
        process.kill()  # with a target defined, it does not hear SIGTERM
        process.wait()


@contextmanager
def tiergate(folder: Path, size_bytes: int, layout: str, alus: int) -> Iterator[Endpoint]:
    """Run the appliance on files; the volume is filled through the block layer's own path."""
    port, state = free_port(), folder / f"state-{layout}"
    command = str(Path(sys.executable).with_name("tiergate"))
    with (folder / f"{layout}.log").open("wb") as log:
        process = subprocess.Popen(
            [command, "serve", "--state", str(state), "--portal", f"127.0.0.1:{port}"], stdout=log, stderr=log
        )

    def say(*words: str) -> dict[str, object]:
        line = [command, "--state", str(state), *words, "--json"]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    try:
        _wait_for(port)
        names = [f"a{number}" for number in range(alus)]
        copies = 2 if "mirror" in layout else 1
        for name in names:
            room = size_bytes * copies // alus + SLACK
            say("/alus", "attach", f"path={folder / layout}-{name}.img", f"size={room}", f"name={name}")
        say("/volumes", "create", "name=v", f"size={size_bytes}", f"layout={layout}", f"alus={','.join(names)}")
        say("/hosts", "create", "name=any", "iqn=*")
        say("/volumes/v", "expose", "host=any", "lun=0")
        paths = [folder / f"{layout}-{name}.img" for name in names]
        urls = say("/volumes/v", "info")["iscsi_urls"]
        assert isinstance(urls, list)
        endpoint = Endpoint(f"tiergate, {layout}", port, str(urls[0]).split("/")[3], 0, process.pid)
        load(endpoint, Work("write", "sequential", 4096, 32), seconds=0)
        with locked_in_memory(paths):
            yield endpoint
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, limit_s: float = 20) -> None:
    until = time.monotonic() + limit_s
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
