"""The one table of all commands: the shell, its help and completion, and the API server follow it.

A command stands at a path: ``/volumes`` is a folder, ``/volumes/NAME`` anything in it. What it takes
are parameters of the ``Kind``s in ``values``; what it does is a method of the typed API, called with
one keyword argument a parameter (``chap-user`` is ``chap_user``), and with ``name`` for what stands
in the path. A parameter that is not given is its default, or None.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from appliance.mic import values
from appliance.mic.values import Kind, shown
from appliance.mic.views import View
from backstores.errors import UsageError

if TYPE_CHECKING:
    from appliance.mic.management import Management

Api = Callable[..., Awaitable[object]]

NAME: Final = "NAME"
ANYWHERE: Final = "**"


class CommandError(UsageError):
    """No such command or parameter, or a value that can't be read: the line itself is wrong."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a command takes. A positional one may be given without its name."""

    name: str
    kind: Kind
    help: str
    required: bool = False
    default: str | None = None
    positional: bool = False

    @property
    def keyword(self) -> str:
        """The name of the API's argument."""
        return self.name.replace("-", "_")

    @property
    def usage(self) -> str:
        """How it is typed, in brackets where it can be left out."""
        text = self.kind.label if self.positional else f"{self.name}={self.default or self.kind.label}"
        return text if self.required else f"[{text}]"


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``reports``: it can tell how far it has come; ``changes``: it waits for other changes."""

    path: str
    name: str
    help: str
    api: Callable[[Management], Api]
    parameters: tuple[Parameter, ...] = ()
    view: View = View.OUTCOME
    changes: bool = True
    reports: bool = False

    @property
    def usage(self) -> str:
        """How it is typed."""
        return " ".join([self.name, *(parameter.usage for parameter in self.parameters)])


@dataclass(frozen=True, slots=True)
class Call:
    """A command with all its values read."""

    command: Command
    path: str
    arguments: Mapping[str, Any]  # Any: each command's API says what it takes, a test compares the two


def _required(name: str, kind: Kind, text: str, positional: bool = False) -> Parameter:
    return Parameter(name, kind, text, required=True, positional=positional)


def _optional(name: str, kind: Kind, text: str, default: str | None = None) -> Parameter:
    return Parameter(name, kind, text, default=default)


def _reading(path: str, name: str, text: str, api: Callable[[Management], Api], view: View) -> Command:
    return Command(path, name, text, api, view=view, changes=False)


_FORCE: Final = _optional("force", values.YES_NO, "do it although it loses something", "no")
_MUTUAL: Final = (
    _optional("mutual-user", values.USER, "the name by which the appliance proves itself to the host"),
    _optional("mutual-secret-file", values.PATH, "a file of mode 600 with the appliance's secret"),
)

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "/",
        "export",
        "print the whole configuration as YAML",
        lambda m: m.configuration.export,
        (_optional("secrets", values.YES_NO, "write the CHAP secrets, too", "no"),),
        view=View.DOCUMENT,
        changes=False,
    ),
    Command(
        "/",
        "apply",
        "make the configuration what a file says, changing only what differs",
        lambda m: m.configuration.apply,
        (
            _required("file", values.DOCUMENT, "what export printed", positional=True),
            _optional(
                "prune", values.YES_NO, "delete what the file does not name, volumes with their data included", "no"
            ),
            _optional("dry-run", values.YES_NO, "only tell what would change", "no"),
        ),
        reports=True,
    ),
    _reading(ANYWHERE, "ls", "show what is here as a tree", lambda m: m.nodes, View.TREE),
    _reading("/alus", "list", "list the ALUs", lambda m: m.alus.rows, View.TABLE),
    Command(
        "/alus",
        "attach",
        "open a file or block device to make volumes on; a blank one is claimed",
        lambda m: m.alus.attach,
        (
            _required("path", values.LOCATION, "the file, block device, or unit of an iSCSI target"),
            _optional("size", values.SIZE, "make the file, this large, if it is not there"),
            _optional("name", values.NAME, "its name here; the file's name without its ending otherwise"),
            _optional("legacy", values.YES_NO, "never write to it: a volume is all of it, with the data it has", "no"),
            _optional("force", values.YES_NO, "a legacy one: though something else stood at this path before", "no"),
        ),
    ),
    Command("/alus", "scan", "look for disks that nobody uses, and again for missing ALUs", lambda m: m.alus.scan),
    Command(
        "/alus",
        "claim",
        "make several ALUs the appliance's own, such as disks that a scan has found",
        lambda m: m.alus.claim_several,
        (_required("alus", values.ALUS, "which"), _FORCE),
    ),
    _reading("/alus/NAME", "info", "tell all about this ALU", lambda m: m.alus.info, View.RECORD),
    Command(
        "/alus/NAME",
        "claim",
        "make this ALU the appliance's own; by force whatever is on it",
        lambda m: m.alus.claim,
        (_FORCE,),
    ),
    Command("/alus/NAME", "detach", "close this ALU; what lies on it stays", lambda m: m.alus.detach),
    _reading("/pools", "list", "list the pools", lambda m: m.pools.rows, View.TABLE),
    Command(
        "/pools",
        "create",
        "make a pool of ALUs to place volumes on",
        lambda m: m.pools.create,
        (_required("name", values.NAME, "the pool's name"), _required("alus", values.ALUS, "its members")),
    ),
    _reading("/pools/NAME", "info", "tell all about this pool", lambda m: m.pools.info, View.RECORD),
    Command(
        "/pools/NAME",
        "add",
        "put ALUs into this pool",
        lambda m: m.pools.add,
        (_required("alus", values.ALUS, "the new members"),),
    ),
    Command(
        "/pools/NAME",
        "remove",
        "take ALUs out of this pool; volumes stay where they are",
        lambda m: m.pools.remove,
        (_required("alus", values.ALUS, "the members to take out"),),
    ),
    Command("/pools/NAME", "delete", "forget this pool; its ALUs and volumes stay", lambda m: m.pools.delete),
    _reading("/volumes", "list", "list the volumes", lambda m: m.volumes.rows, View.TABLE),
    Command(
        "/volumes",
        "create",
        "make a volume and bring it on line",
        lambda m: m.volumes.create,
        (
            _required("name", values.NAME, "the volume's name"),
            _optional("size", values.SIZE, "how much it holds; a legacy or direct one is as large as its ALU"),
            _optional("layout", values.LAYOUT, "how it lies on its ALUs", "linear"),
            _optional("pool", values.POOL, "place it on this pool's ALUs"),
            _optional("alus", values.ALUS, "place it on these ALUs, in this order"),
            _optional("chunk", values.SIZE, "what a stripe puts on one member before the next", "64K"),
            _optional("legs", values.COUNT, "how many copies a mirror keeps", "2"),
            _optional("width", values.COUNT, "over how many members a stripe goes", "2"),
            _optional("block", values.BLOCK_BYTES, "the size of a logical block", "512"),
            _optional("max-alus", values.COUNT, "how many ALUs it may lie on at most"),
        ),
        reports=True,
    ),
    _reading("/volumes/NAME", "info", "tell all about this volume", lambda m: m.volumes.info, View.RECORD),
    _reading("/volumes/NAME", "tree", "show what this volume is made of", lambda m: m.volumes.tree, View.TREE),
    Command(
        "/volumes/NAME",
        "expose",
        "let a host see this volume",
        lambda m: m.volumes.expose,
        (
            _required("host", values.HOST, "who may see it"),
            _optional("lun", values.LUN, "under which number; the lowest free one otherwise"),
            _optional("iqn", values.IQN, "make the host, if it is not there, for this initiator's name or pattern"),
        ),
    ),
    Command(
        "/volumes/NAME",
        "unexpose",
        "take this volume away from a host",
        lambda m: m.volumes.unexpose,
        (_required("host", values.HOST, "who shall not see it any more"),),
    ),
    Command(
        "/volumes/NAME",
        "grow",
        "make this volume larger",
        lambda m: m.volumes.grow,
        (_required("size", values.SIZE, "how much it shall hold in all"),),
        reports=True,
    ),
    Command(
        "/volumes/NAME",
        "delete",
        "delete this volume and the data on it",
        lambda m: m.volumes.delete,
        (_FORCE,),
    ),
    _reading("/hosts", "list", "list the hosts", lambda m: m.hosts.rows, View.TABLE),
    Command(
        "/hosts",
        "create",
        "let an initiator, or all that a pattern matches, log in",
        lambda m: m.hosts.create,
        (
            _required("name", values.NAME, "the host's name"),
            _required("iqn", values.IQN, "the initiator's name, or a pattern"),
            _optional("chap-user", values.USER, "the name by which the host proves itself"),
            _optional("chap-secret-file", values.PATH, "a file of mode 600 with the host's secret"),
            *_MUTUAL,
        ),
    ),
    _reading("/hosts/NAME", "info", "tell all about this host", lambda m: m.hosts.info, View.RECORD),
    Command(
        "/hosts/NAME",
        "set-chap",
        "ask this host for CHAP",
        lambda m: m.hosts.set_chap,
        (
            _required("chap-user", values.USER, "the name by which the host proves itself"),
            _required("chap-secret-file", values.PATH, "a file of mode 600 with the host's secret"),
            *_MUTUAL,
        ),
    ),
    Command("/hosts/NAME", "clear-chap", "let this host log in without CHAP", lambda m: m.hosts.clear_chap),
    Command("/hosts/NAME", "delete", "forget this host", lambda m: m.hosts.delete, (_FORCE,)),
    _reading("/sessions", "list", "list who is logged in", lambda m: m.sessions, View.TABLE),
    _reading("/sps", "status", "tell how the storage processors are", lambda m: m.sps, View.TABLE),
    _reading(
        "/fabrics", "list", "list the fabrics between storage processors", lambda m: m.fabrics.fabrics, View.TABLE
    ),
    _reading("/faults", "list", "list what was failed on purpose", lambda m: m.fabrics.faults, View.TABLE),
    Command(
        "/faults",
        "inject",
        "fail a part, such as link:sp1/int1, fabric:int1, port:sp1/hostA, sp:sp1, blade:b1 or alu:a0",
        lambda m: m.fabrics.inject,
        (_required("part", values.PART, "what shall fail"),),
    ),
    Command(
        "/faults",
        "restore",
        "restore a part that was failed",
        lambda m: m.fabrics.restore,
        (_required("part", values.PART, "what shall work again"),),
    ),
    _reading(
        "/gs",
        "status",
        "tell whether the configuration can be changed, and who votes",
        lambda m: m.gs.status,
        View.RECORD,
    ),
    Command(
        "/gs",
        "reform",
        "go on without the members that are missing, if they are lost for good",
        lambda m: m.gs.reform,
        (_FORCE,),
    ),
    _reading("/operations", "list", "tell how the latest changes ended", lambda m: m.history.rows, View.TABLE),
)


def folders() -> tuple[str, ...]:
    """Give the folders at the root, in the order of the table."""
    return tuple(dict.fromkeys(f"/{c.path.split('/')[1]}" for c in COMMANDS if c.path not in ("/", ANYWHERE)))


def at(pattern: str) -> Iterator[Command]:
    """Yield the commands that stand at a path pattern, as ``pattern_of`` gives it."""
    return (command for command in COMMANDS if command.path in (pattern, ANYWHERE))


def pattern_of(path: str) -> tuple[str, str | None]:
    """Split a path into the pattern of its commands, and the name in it.

    Raises:
        CommandError: there can be no such path.
    """
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "/", None
    folder = f"/{parts[0]}"
    if folder not in folders():
        raise CommandError(f"there is no {shown(path)}; there is {', '.join(folders())}")
    if len(parts) == 1:
        return folder, None
    pattern = f"{folder}/{NAME}"
    if len(parts) > 2 or not any(command.path == pattern for command in COMMANDS):
        raise CommandError(f"there is nothing below /{'/'.join(parts[:-1])}: {shown(path)} is too deep")
    try:
        return pattern, values.parse_name(parts[1])
    except UsageError as error:
        raise CommandError(str(error)) from error


def command_at(path: str, word: str) -> Command:
    """Find a command by its path and name.

    Raises:
        CommandError: there is none; says which there are.
    """
    pattern, _ = pattern_of(path)
    found = {command.name: command for command in at(pattern)}
    if word not in found:
        raise CommandError(f"{path or '/'} has no command {shown(word)}; it has {', '.join(sorted(found))}")
    return found[word]


def bind(path: str, word: str, given: Mapping[str, str | int | bool]) -> Call:
    """Find a command and read its values: the one door that every front end's commands pass.

    Raises:
        CommandError: no such path, command or parameter, one is missing, or a value can't be read.
    """
    command = command_at(path, word)
    pattern, name = pattern_of(path)
    known = {parameter.name: parameter for parameter in command.parameters}
    for key in given:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes nothing"
            raise CommandError(f"{word} takes no {shown(key)}; {takes}")
    missing = [p.usage for p in command.parameters if p.required and p.name not in given]
    if missing:
        raise CommandError(f"{word} needs {' and '.join(missing)}; it is typed: {command.usage}")
    arguments: dict[str, Any] = {p.keyword: _read(p, given.get(p.name, p.default)) for p in command.parameters}
    if command.path == ANYWHERE:
        arguments["path"] = path
    elif pattern.endswith(NAME):
        arguments["name"] = name
    return Call(command, path, arguments)


def _read(parameter: Parameter, value: str | int | bool | None) -> object:
    if value is None:
        return None
    text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    try:
        return parameter.kind.parse(text)
    except UsageError as error:
        raise CommandError(f"{parameter.name}: {error}") from error
