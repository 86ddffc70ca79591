"""The configuration document: what ``export`` writes and ``apply`` reads, as typed entries.

Reading checks all that the document alone can tell: words, types, sizes, names given twice. Lists
are in the order of names, and what an entry does not have is left out, so that two exports of one
configuration are equal to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import yaml

from appliance.mic import values
from appliance.mic.commands import CommandError
from appliance.plainyaml import check_plain
from backstores.errors import UsageError

FORMAT: Final = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"):
    """What all entries have in common: unknown words are errors, and words have hyphens."""


class AluEntry(Entry, frozen=True, kw_only=True):
    """An ALU; ``size`` is there for one that is a file, and not a legacy one."""

    name: str
    path: str
    size: str | int | None = None
    legacy: bool = False


class PoolEntry(Entry, frozen=True, kw_only=True):
    """A pool."""

    name: str
    alus: tuple[str, ...]


class VolumeEntry(Entry, frozen=True, kw_only=True):
    """A volume, by what ``create`` is told."""

    name: str
    size: str | int
    layout: str
    pool: str | None = None
    alus: tuple[str, ...] | None = None
    chunk: str | int | None = None
    legs: int | None = None
    width: int | None = None
    block: int = 512


class HostEntry(Entry, frozen=True, kw_only=True):
    """A host. Without a secret, one that the appliance has already stays."""

    name: str
    iqn: str
    chap_user: str | None = None
    chap_secret: str | None = None
    chap_secret_file: str | None = None
    mutual_user: str | None = None
    mutual_secret: str | None = None
    mutual_secret_file: str | None = None

    def __repr__(self) -> str:
        return f"HostEntry(name={self.name!r}, iqn={self.iqn!r})"  # no secret in a log


class ExposureEntry(Entry, frozen=True, kw_only=True):
    """A volume that a host sees."""

    host: str
    volume: str
    lun: int | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. ``tiergate`` is the version of this format."""

    tiergate: int
    alus: tuple[AluEntry, ...] = ()
    pools: tuple[PoolEntry, ...] = ()
    volumes: tuple[VolumeEntry, ...] = ()
    hosts: tuple[HostEntry, ...] = ()
    exposures: tuple[ExposureEntry, ...] = ()


def size_in(value: str | int) -> int:
    """Read a size as the shell does."""
    return values.parse_size(str(value))


def read_document(text: str) -> Document:
    """Read a document and check what it alone can tell.

    Raises:
        CommandError: it is no YAML, no document of ours, or an entry is wrong; says which.
    """
    try:
        check_plain(text)
        document = msgspec.yaml.decode(text.encode(), type=Document)
    except UsageError as error:
        raise CommandError(str(error)) from error
    except (msgspec.MsgspecError, yaml.YAMLError, ValueError) as error:  # ValueError: a number or date that is none
        raise CommandError(f"the file is no configuration: {' '.join(str(error).split())}") from error
    if document.tiergate != FORMAT:
        raise CommandError(f"the file has format {document.tiergate}, this program knows {FORMAT}")
    for kind, entries in (
        ("alu", document.alus),
        ("pool", document.pools),
        ("volume", document.volumes),
        ("host", document.hosts),
    ):
        _check_names(kind, [entry.name for entry in entries])
    _check_names("exposure", [f"{e.volume} to {e.host}" for e in document.exposures], named=False)
    for kind, name, word, parse, value in _texts(document):
        if value is not None:
            try:
                parse(str(value))
            except UsageError as error:
                raise CommandError(f"{kind} {name}: {word}: {error}") from error
    return document


Check = tuple[str, str, str, Callable[[str], object], object]


def _texts(document: Document) -> list[Check]:
    """List every value that must be read by a parser: kind and name of its entry, word, parser, value."""
    checks: list[Check] = []
    for alu in document.alus:
        checks += [
            ("alu", alu.name, "path", values.parse_location, alu.path),
            ("alu", alu.name, "size", values.parse_size, alu.size),
        ]
    for pool in document.pools:
        checks.append(("pool", pool.name, "alus", values.parse_names, ",".join(pool.alus)))
    for volume in document.volumes:
        checks += [
            ("volume", volume.name, "size", values.parse_size, volume.size),
            ("volume", volume.name, "layout", values.LAYOUT.parse, volume.layout),
            ("volume", volume.name, "alus", values.parse_names, ",".join(volume.alus) if volume.alus else None),
            ("volume", volume.name, "chunk", values.parse_size, volume.chunk),
            ("volume", volume.name, "legs", values.parse_count, volume.legs),
            ("volume", volume.name, "width", values.parse_count, volume.width),
            ("volume", volume.name, "block", values.parse_block_bytes, volume.block),
        ]
    for host in document.hosts:
        checks += [
            ("host", host.name, "iqn", values.parse_iscsi_pattern, host.iqn),
            ("host", host.name, "chap-user", values.parse_user, host.chap_user),
            ("host", host.name, "chap-secret-file", values.parse_path, host.chap_secret_file),
            ("host", host.name, "mutual-user", values.parse_user, host.mutual_user),
            ("host", host.name, "mutual-secret-file", values.parse_path, host.mutual_secret_file),
        ]
    for exposure in document.exposures:
        checks.append(("exposure of", exposure.volume, "lun", values.parse_lun, exposure.lun))
    return checks


def _check_names(kind: str, names: Sequence[str], named: bool = True) -> None:
    for name, times in Counter(names).items():
        if named:
            try:
                values.parse_name(name)
            except UsageError as error:
                raise CommandError(f"{kind}: name: {error}") from error
        if times > 1:
            raise CommandError(f"{kind} {name} stands more than once in the file")
