"""Reads LIO's part of configfs, and carries steps out there: the one module that touches /sys/kernel/config.

Each call may wait for the kernel, which may wait for commands that our own handlers answer: call from a thread.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from appliance.lio import reservations
from appliance.lio.plan import MakeFolder, MakeLink, Present, RemoveFolder, RemoveLink, RestoreReservations, Set
from appliance.lio.reservations import ROOT
from appliance.lio.rules import UNSET
from appliance.lio.tree import ALIAS, ENABLE, HBA, NAMES, SERIAL, Kind, Node, Site
from appliance.namespaces import inside
from backstores.errors import TiergateError

RESERVATIONS: Final = "pr/res_aptpl_metadata"
LINK: Final = "tiergate"
"""What our links are called; the kernel doesn't mind."""

FolderStep = MakeFolder | RemoveFolder | Set | MakeLink | RemoveLink | RestoreReservations
"""The steps that are this module's; the others are the handlers'."""


class LioError(TiergateError):
    """A step could not be carried out. ``path`` says at which node."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Configfs:
    """LIO's folders below ``root``."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._steps: dict[type, Callable[..., None]] = {
            MakeFolder: lambda step: inside(step.namespace, lambda: self._make(step)),
            RemoveFolder: lambda step: os.rmdir(self.root / step.path),
            Set: self._set,
            MakeLink: lambda step: os.symlink(self.root / step.link, self.root / step.path / LINK),
            RemoveLink: lambda step: os.unlink(self._links(step.path)[0]),
            RestoreReservations: self._restore,
        }

    def carry_out(self, step: FolderStep) -> None:
        """Carry out one step.

        Raises:
            LioError: the kernel refused it; nothing has changed.
            UsageError: it was to be done in a network namespace that is not there.
        """
        try:
            self._steps[type(step)](step)
        except OSError as error:
            raise LioError(step.path, _explain(step, error)) from error

    def _make(self, step: MakeFolder) -> None:
        if step.kind is Kind.PORTAL:
            _demand_address(step.path.rpartition("/")[2])
        os.mkdir(self.root / step.path)

    def _set(self, step: Set) -> None:
        self._write(step.path, step.name, UNSET if step.name.startswith("auth/") and not step.value else step.value)

    def _restore(self, step: RestoreReservations) -> None:
        for registration in reservations.kept_for(step.serial, step.lun, reservations.folder(self.root)):
            self._write(step.path, RESERVATIONS, registration)

    def _write(self, path: str, name: str, value: str) -> None:
        """Write a setting at once, without a line's end: configfs takes each write as a whole value."""
        handle = os.open(self.root / path / name, os.O_WRONLY)
        try:
            os.write(handle, value.encode())
        finally:
            os.close(handle)

    # Reading

    def read(self, site: Site) -> Present:
        """Look at what is there. This is done once, at the start; from then on we know.

        Raises:
            LioError: a setting can't be read.
        """
        nodes: dict[str, Node] = {}
        foreign: set[str] = set()
        for path, node in (*self._backstores(site), *self._target(site)):
            if node is None:
                foreign.add(path)
            else:
                nodes[path] = node
        return Present(nodes, frozenset(foreign))

    def _backstores(self, site: Site) -> Iterator[tuple[str, Node | None]]:
        if not (self.root / HBA).is_dir():
            return
        yield HBA, Node(Kind.HBA)
        for name in self._folders(HBA):
            path = f"{HBA}/{name}"
            ours = name.startswith(site.backstore_prefix)
            yield path, self._node(Kind.BACKSTORE, path) if ours else None

    def _target(self, site: Site) -> Iterator[tuple[str, Node | None]]:
        if not (self.root / site.target).is_dir():
            return
        folders = [f"{site.target}/{name}" for name in self._folders(site.target) if name.startswith("tpgt_")]
        groups = {group: site.namespace_in(self._read(group, ALIAS)) for group in folders}
        groups.update({group: "" for group in folders if groups[group] is None and self._bare(group)})
        yield site.target, None if None in groups.values() else Node(Kind.TARGET)
        for group, namespace in groups.items():
            if namespace is None:
                yield group, None
            else:
                yield from self._group(group, namespace)

    def _group(self, group: str, namespace: str) -> Iterator[tuple[str, Node]]:
        yield group, self._node(Kind.GROUP, group)
        for kind, folder in ((Kind.LUN, "lun"), (Kind.ACL, "acls"), (Kind.PORTAL, "np")):
            for name in self._folders(f"{group}/{folder}"):
                path = f"{group}/{folder}/{name}"
                yield path, self._node(kind, path, namespace if kind is Kind.PORTAL else "")
                if kind is Kind.ACL:
                    for below in self._folders(path):
                        if below.startswith("lun_"):
                            yield f"{path}/{below}", self._node(Kind.MAPPED_LUN, f"{path}/{below}")

    def _bare(self, group: str) -> bool:
        """Say whether a portal group was made a moment ago and nothing was put into it: a start that was killed."""
        filled = any(self._folders(f"{group}/{folder}") for folder in ("lun", "acls", "np"))
        return not filled and self._read(group, ENABLE) == "0"

    def _node(self, kind: Kind, path: str, namespace: str = "") -> Node:
        settings = {name: self._read(path, name) for name in NAMES.get(kind, ())}
        links = self._links(path) if kind in (Kind.LUN, Kind.MAPPED_LUN) else []
        link = os.path.relpath(os.path.realpath(links[0]), self.root) if links else ""
        return Node(kind, settings, link, namespace)

    def _read(self, path: str, name: str) -> str:
        compose = COMPOSED.get(name)
        if compose is not None:
            return compose(lambda part: self._text(path, part))
        text = self._text(path, name)
        return "" if name.startswith("auth/") and text == UNSET else text

    def _text(self, path: str, name: str) -> str:
        try:
            return (self.root / path / name).read_text().strip()
        except OSError as error:
            raise LioError(path, _explain(Set(path, name, ""), error)) from error

    def _folders(self, path: str) -> list[str]:
        with os.scandir(self.root / path) as found:
            return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))

    def _links(self, path: str) -> list[str]:
        with os.scandir(self.root / path) as found:
            return [entry.path for entry in found if entry.is_symlink()]


def _demand_address(portal: str) -> None:
    """Raise OSError unless this machine has the address: the kernel would listen for one that may come some day."""
    host = portal.rpartition(":")[0].strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))


def _control(read: Callable[[str], str]) -> str:
    """Give back what was written to a backstore's control file, which can't be read."""
    names = ("dev_config", "hw_block_size", "max_data_area_mb", "cmd_ring_size_mb", "nl_reply_supported")
    return ",".join(f"{name}={read(f'attrib/{name}')}" for name in names)


COMPOSED: Final[Mapping[str, Callable[[Callable[[str], str]], str]]] = {
    "control": _control,
    # "T10 VPD Unit Serial Number: ..."
    SERIAL: lambda read: read(SERIAL).rpartition(":")[2].strip(),
}
"""Settings that don't read as they are written."""

TOO_OLD: Final = (
    "this kernel ({release}) has no {path}/{name}; Linux 6.0 or later is needed, or serve with --frontend embedded"
)


def _explain(step: FolderStep, reason: OSError) -> str:
    """Say what the kernel refused, in words; never a value, which may be a secret."""
    name = step.path.rpartition("/")[2]
    match step:
        case Set() if reason.errno in (errno.ENOENT, errno.EACCES):
            return TOO_OLD.format(release=os.uname().release, path=step.path, name=step.name)
        case Set():
            return f"LIO refuses the value for {step.path}/{step.name}: {reason.strerror}"
        case MakeFolder(kind=Kind.PORTAL):
            where = f"{name} in network namespace {step.namespace}" if step.namespace else name
            return (
                f"LIO can't listen on {where}: the port is taken or the address is not ours ({reason.strerror});"
                " `ss -ltnp` shows who has it; choose another with --portal ADDRESS:PORT"
            )
        case MakeFolder(kind=Kind.TARGET):
            return f"LIO refuses the target name {name}: {reason.strerror}; choose another with --iqn"
        case MakeFolder(kind=Kind.ACL):
            return f"LIO refuses the initiator name {name}: {reason.strerror}"
        case RestoreReservations():
            return (
                f"the reservations that were kept for {name} can't be restored ({reason.strerror}); "
                f"to go on without them, remove pr/aptpl_{step.serial} from the folder that {ROOT}/dbroot names"
            )
    return f"LIO refuses {type(step).__name__} at {step.path}: {reason.strerror}"
