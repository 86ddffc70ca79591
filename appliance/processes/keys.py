"""The keys of the processes: made once, kept in the state folder, and read by nobody else (S4).

Each process has a file with its own key pair and the public key of the VCM: all that it needs to join. A file may be
carried to another machine, for ``tiergate sp --join HOST --key FILE``. Who may join is who has a file in the folder; to
shut somebody out, remove it and start the VCM again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from appliance.bus.ports import HUB
from appliance.bus.security import KeyPair, make_key_pair
from appliance.identity import Identity
from backstores.errors import CorruptError, UsageError

FOLDER: Final = "keys"
SUFFIX: Final = ".key"
FORMAT: Final = 1
MOST_BYTES: Final = 4096
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

Z85Key = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key file holds: besides keys the names of the appliance, which whoever joins must know."""

    format: int
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    public: Z85Key
    secret: Z85Key
    vcm: Z85Key
    susid: str
    iqn: str

    @property
    def keys(self) -> KeyPair:
        """The owner's pair."""
        return KeyPair(self.public.encode(), self.secret.encode())

    @property
    def vcm_key(self) -> bytes:
        """What the VCM is known by."""
        return self.vcm.encode()

    def __repr__(self) -> str:
        return f"KeyFile({self.name})"  # no secret in a log


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of a whole system, by names."""

    files: dict[str, KeyFile]

    def who_has(self, public: bytes) -> str | None:
        """Say whose public key this is; the VCM's own is nobody's here."""
        return next((f.name for f in self.files.values() if f.public.encode() == public and f.name != HUB), None)


def ensure_keys(state: Path, names: Iterable[str], who: Identity) -> KeyRing:
    """Read the keys of the VCM and of these processes; make those that are missing.

    Raises:
        UsageError: a file can be read by others, or can't be written.
        CorruptError: a file is no key file.
    """
    folder = state / FOLDER
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        hub = _ensure(folder, HUB, who, None)
        return KeyRing({HUB: hub, **{name: _ensure(folder, name, who, hub) for name in names}})
    except OSError as error:
        raise UsageError(f"keys in {folder} can't be used: {error.strerror}") from error


def read_key(path: Path) -> KeyFile:
    """Read a key file.

    Raises:
        UsageError: there is none, or others can read it.
        CorruptError: it is no key file.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"key file {path} can't be read: {error.strerror}") from error
    if mode & OTHERS:
        raise UsageError(f"key file {path} can be used by others (mode {mode & 0o777:04o}): type chmod 600 {path}")
    try:
        found = msgspec.json.decode(raw, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path} is no key file: remove it, and a new one is made where the VCM starts") from error
    if found.format != FORMAT:
        raise CorruptError(f"key file {path} has format {found.format}, this program knows {FORMAT}")
    return found


def _ensure(folder: Path, name: str, who: Identity, hub: KeyFile | None) -> KeyFile:
    path = folder / f"{name}{SUFFIX}"
    if not path.exists():
        _write(path, _made(name, who, hub))
    found = read_key(path)
    if found.name != name:
        raise CorruptError(f"key file {path} is that of {found.name}; remove it, and a new one is made")
    if hub is not None and found.vcm != hub.public:
        raise CorruptError(f"key file {path} is for another VCM; remove it, and a new one is made")
    renamed = msgspec.structs.replace(found, susid=who.susid, iqn=who.iqn)
    if renamed != found:
        _write(path, renamed)
    return renamed


def _made(name: str, who: Identity, hub: KeyFile | None) -> KeyFile:
    made = make_key_pair()
    public = made.public.decode()
    return KeyFile(
        format=FORMAT,
        name=name,
        public=public,
        secret=made.secret.decode(),
        vcm=hub.public if hub else public,
        susid=who.susid,
        iqn=who.iqn,
    )


def _write(path: Path, content: KeyFile) -> None:
    """Write a file that is whole whenever it has its name, and that never was anybody else's to read."""
    beginning = path.with_suffix(".new")
    beginning.unlink(missing_ok=True)
    handle = os.open(beginning, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(content) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beginning.rename(path)
