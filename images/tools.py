"""The tools that the image is made and booted with, and where things lie."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from backstores.errors import TiergateError

PROJECT: Final = Path(__file__).resolve().parent.parent
RECIPE: Final = PROJECT / "images"
BUILD: Final = PROJECT / "build" / "image"
IMAGE: Final = BUILD / "tiergate.qcow2"
KERNEL: Final = BUILD / "vmlinuz"
WHEELS: Final = BUILD / "wheels"
PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where Debian keeps some, and users don't look


class ImageError(TiergateError):
    """The image can't be made or booted. The message says why, and what to type."""


def need(*tools: str) -> None:
    """Make sure that tools are there.

    Raises:
        ImageError: one is not.
    """
    missing = [tool for tool in tools if shutil.which(tool, path=PATH) is None]
    if missing:
        raise ImageError(f"{', '.join(missing)}: not installed; type `scripts/setup.sh image`, as root")


def run(command: list[str], text: str = "") -> str:
    """Run a tool with a text as its input, and give what it says.

    Raises:
        ImageError: it failed; with the last of what it said.
    """
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-15:]
        raise ImageError(f"{command[0]} failed with status {done.returncode}:\n" + "\n".join(said))
    return done.stdout
