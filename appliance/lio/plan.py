"""From the tree that is there to the tree we want: an ordered list of steps (no I/O).

The order is the kernel's: a folder is made after its parent and after what it links to, and removed before
them. A portal group is enabled last, when it is whole, and disabled first, so that hosts never see half of
it. A backstore's handler runs from before the first LUN leads to it until after the last one is gone,
because the kernel waits for running commands when it takes a LUN away.

Undoing a plan that failed half way is just another plan: back to the tree that was there before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.lio.tree import ENABLE, LIVE, SERIAL, Kind, Node, Tree
from backstores.errors import UsageError

BLOCK: Final = "action/block_dev"
RESET: Final = "action/reset_ring"


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder, in a network namespace; the kernel fills it."""

    path: str
    kind: Kind
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class RemoveFolder:
    """Remove a folder that nothing links to any more."""

    path: str


@dataclass(frozen=True, slots=True)
class Set:
    """Write a setting. Its value may be a secret."""

    path: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Let a LUN lead to its backstore, or a mapped LUN to its LUN."""

    path: str
    link: str


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """Take the link of a folder away; the kernel waits for the commands that use it."""

    path: str


@dataclass(frozen=True, slots=True)
class RestoreReservations:
    """Give a new backstore the persistent reservations that were kept for its serial number.

    They name the LUN of the portal group, which may be another one by now.
    """

    path: str
    serial: str
    lun: int


@dataclass(frozen=True, slots=True)
class StartHandler:
    """Answer the commands of a backstore from here on."""

    path: str


@dataclass(frozen=True, slots=True)
class StopHandler:
    """Let go of a backstore."""

    path: str


Step = MakeFolder | RemoveFolder | Set | MakeLink | RemoveLink | RestoreReservations | StartHandler | StopHandler


@dataclass(frozen=True, slots=True)
class Present:
    """What is there: our own nodes, the paths at which something of others is, and the backstores that we handle."""

    nodes: Tree
    foreign: frozenset[str] = frozenset()
    handled: frozenset[str] = frozenset()


class NotOurs(UsageError):
    """Something of another owner stands where we need to be."""

    def __init__(self, path: str) -> None:
        super().__init__(f"/sys/kernel/config/target/{path} is there and was not made by this appliance")
        self.path = path


def plan(present: Present, wanted: Tree) -> list[Step]:
    """Give the steps that make ``wanted`` out of ``present``.

    Raises:
        NotOurs: something of others is in the way; there is nothing to undo.
    """
    for path in wanted:
        if path in present.foreign:
            raise NotOurs(path)
    gone = _gone(present, wanted)
    kept = {path: node for path, node in present.nodes.items() if path not in gone}
    return [*_silence(present), *_remove(present, gone), *_make(present, kept, wanted), *_enable(kept, wanted)]


def _gone(present: Present, wanted: Tree) -> set[str]:
    """Choose what must go: what is not wanted, or not as it is, and all that stands on that."""
    nodes = present.nodes
    gone = {path for path, node in nodes.items() if path not in wanted or not _fits(node, wanted[path])}
    by_kind = sorted(nodes.items(), key=lambda item: item[1].kind)
    for path, node in by_kind:  # what a node stands on is of an earlier kind
        if node.link in gone or any(above in gone for above in _above(path)):
            gone.add(path)
    # A folder in which others have something stays.
    spared = {above for path in present.foreign for above in _above(path)}
    return gone - spared


def _fits(there: Node, wanted: Node) -> bool:
    """Say whether a node can become the wanted one in place."""
    if (there.kind, there.link, there.namespace) != (wanted.kind, wanted.link, wanted.namespace):
        return False
    return all(there.settings.get(name) == value for name, value in wanted.settings.items() if not _live(there, name))


def _live(node: Node, name: str) -> bool:
    names = LIVE.get(node.kind, frozenset())
    return names is None or name in names


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _silence(present: Present) -> Iterator[Step]:
    """Take over what a killed predecessor has left without a handler, what will go included.

    Its commands end BUSY, which hosts retry, and its ring starts anew. Without this the kernel would wait
    for them for ever as soon as a LUN is taken away.
    """
    for path, node in sorted(present.nodes.items()):
        if node.kind is Kind.BACKSTORE and node.settings.get(ENABLE) == "1" and path not in present.handled:
            yield Set(path, BLOCK, "1")
            yield Set(path, RESET, "1")


def _remove(present: Present, gone: Collection[str]) -> Iterator[Step]:
    nodes = present.nodes
    for path in sorted(gone):
        if nodes[path].kind is Kind.GROUP and nodes[path].settings.get(ENABLE) == "1":
            yield Set(path, ENABLE, "0")
    for path in sorted(gone, key=lambda path: (nodes[path].kind, path), reverse=True):
        if nodes[path].link:
            yield RemoveLink(path)
        if path in present.handled:
            yield StopHandler(path)
        yield RemoveFolder(path)


def _make(present: Present, kept: Tree, wanted: Tree) -> Iterator[Step]:
    luns = {node.link: int(path.rpartition("_")[2]) for path, node in wanted.items() if node.kind is Kind.LUN}
    for path, node in sorted(wanted.items(), key=lambda item: (item[1].kind, item[0])):
        there = kept.get(path)
        if there is None:
            yield MakeFolder(path, node.kind, node.namespace)
            if node.link:
                yield MakeLink(path, node.link)
        for name, value in node.settings.items():
            late = node.kind is Kind.GROUP and name == ENABLE
            if not late and (there is None or there.settings.get(name) != value):
                yield Set(path, name, value)
        if node.kind is Kind.BACKSTORE and there is None and path in luns:
            yield RestoreReservations(path, node.settings[SERIAL], luns[path])
        if node.kind is Kind.BACKSTORE and path not in (present.handled & kept.keys()):
            yield StartHandler(path)
            if there is not None:
                yield Set(path, BLOCK, "0")  # taken over


def _enable(kept: Tree, wanted: Tree) -> Iterator[Step]:
    for path, node in wanted.items():
        if node.kind is Kind.GROUP:
            there = kept.get(path)
            value = node.settings[ENABLE]
            if there is None or there.settings.get(ENABLE) != value:
                yield Set(path, ENABLE, value)


def after(present: Present, step: Step) -> Present:
    """Give what is there once a step has been carried out."""
    nodes = dict(present.nodes)
    handled = present.handled
    match step:
        case MakeFolder(path, kind, namespace):
            nodes[path] = Node(kind, namespace=namespace)
        case RemoveFolder(path):
            del nodes[path]
        case Set(path, name, value):
            if name not in (BLOCK, RESET):
                nodes[path] = replace(nodes[path], settings={**nodes[path].settings, name: value})
        case MakeLink(path, link):
            nodes[path] = replace(nodes[path], link=link)
        case RemoveLink(path):
            nodes[path] = replace(nodes[path], link="")
        case StartHandler(path):
            handled |= {path}
        case StopHandler(path):
            handled -= {path}
    return Present(nodes, present.foreign, handled)
