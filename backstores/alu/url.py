"""Units of iSCSI targets by URL, in the form that libiscsi and QEMU know (R1).

    iscsi://[USER@]HOST[:PORT][,HOST[:PORT]]/TARGET/LUN[?OPTION=VALUE[&OPTION=VALUE]]

Several hosts are several paths to one target. There is no secret in a URL, which is stored, listed and logged: it
names the file that holds the secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from backstores.errors import UsageError
from backstores.iscsi.initiator.endpoint import DEFAULT_PORT, Endpoint
from backstores.iscsi.text import is_name
from backstores.scsi.lun import LIMIT

SCHEME: Final = "iscsi://"
MOST_PATHS: Final = 8
SWITCHES: Final = {"yes": True, "no": False}
OPTIONS: Final = ("secret-file", "target-user", "target-secret-file", "header-digest", "data-digest", "initiator")


@dataclass(frozen=True, slots=True)
class UnitUrl:
    """What a URL says. Files of secrets have absolute paths."""

    endpoints: tuple[Endpoint, ...]
    target: str
    lun: int
    user: str = ""
    secret_file: str = ""
    target_user: str = ""
    target_secret_file: str = ""
    header_digest: bool = False
    data_digest: bool = False
    initiator: str = ""


def is_url(path: str) -> bool:
    """Tell a URL from the path of a file or device."""
    return path.startswith(SCHEME)


def parse_url(text: str) -> UnitUrl:
    """Take a URL apart.

    Raises:
        UsageError: it is none of this form.
    """
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=16)
    except ValueError as error:
        raise UsageError(f"{_shown(text)} is no URL of the form {_FORM}") from error
    target, _, lun = parts.path.removeprefix("/").rpartition("/")
    user, _, hosts = parts.netloc.rpartition("@")
    target, user = unquote(target), unquote(user)
    if not is_name(target) or "/" in target or parts.fragment or ":" in user:
        raise UsageError(f"{_shown(text)} is no URL of the form {_FORM}")
    if not (lun.isascii() and lun.isdigit() and len(lun) <= 5 and int(lun) < LIMIT):
        raise UsageError(f"lun {_shown(lun)} is not a number from 0 to {LIMIT - 1}")
    options = _options(pairs)
    for name in ("secret-file", "target-secret-file"):
        if not options.get(name, "/").startswith("/"):
            raise UsageError(f"{name}={_shown(options[name])} is no absolute path")
    if bool(user) != ("secret-file" in options) or ("target-user" in options) != ("target-secret-file" in options):
        raise UsageError("a CHAP user goes with a secret's file: USER@ with secret-file=, target-user= with its own")
    if "target-user" in options and not user:
        raise UsageError("target-user= proves the target to us; it goes with USER@ and secret-file=")
    return UnitUrl(
        _endpoints(hosts),
        target,
        int(lun),
        user,
        options.get("secret-file", ""),
        options.get("target-user", ""),
        options.get("target-secret-file", ""),
        _switch(options, "header-digest"),
        _switch(options, "data-digest"),
        options.get("initiator", ""),
    )


_FORM: Final = "iscsi://[USER@]HOST[:PORT]/TARGET/LUN[?secret-file=PATH]"


def _options(pairs: list[tuple[str, str]]) -> dict[str, str]:
    options = dict(pairs)
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown or len(options) != len(pairs):
        raise UsageError(f"option {_shown(unknown[0]) if unknown else 'twice'} is none of {', '.join(OPTIONS)}, once")
    return options


def _switch(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "no")
    if value not in SWITCHES:
        raise UsageError(f"{name}={_shown(value)} is neither yes nor no")
    return SWITCHES[value]


def _endpoints(hosts: str) -> tuple[Endpoint, ...]:
    found = hosts.split(",")
    if len(found) > MOST_PATHS:
        raise UsageError(f"{len(found)} hosts are more than {MOST_PATHS}")
    return tuple(map(_endpoint, found))


def _endpoint(text: str) -> Endpoint:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise UsageError(f"{_shown(text)} is not HOST or HOST:PORT") from error
    if not host or not port or parts.path or parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{_shown(text)} is not HOST or HOST:PORT")
    return Endpoint(host, port)


def _shown(text: str) -> str:
    return ascii(text[:80])
