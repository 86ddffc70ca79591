"""A disk array's unit as an ALU, by its URL: with a target of its own (R1).

Nothing here keeps another machine out, as a lock does that is taken on a file: arrays do that, by what they show to
whom.
"""

from __future__ import annotations

import os
from typing import Final

from backstores.alu.remote import RemoteLun, open_remote
from backstores.alu.url import UnitUrl, parse_url
from backstores.errors import ProtocolError, UsageError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.outcome import CommandFailed
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.session import DEFAULT_PATIENCE
from backstores.iscsi.initiator.target import RemoteTarget
from backstores.secretfile import read_secret

IQN_PREFIX: Final = "iqn.2026-11.example.tiergate"
RANDOM_ISID: Final = 0x80 << 40  # the type whose other bits are random (RFC 7143, 11.12.5)


class ArrayLun(RemoteLun):
    """A unit whose sessions are its own, and end with it."""

    async def settle(self) -> None:
        """Log out; the driver is about to be closed."""
        await self._target.close()


async def open_array(path: str, patience: Patience = DEFAULT_PATIENCE) -> RemoteLun:
    """Open what a URL names.

    Raises:
        UsageError: it can't be reached, does not let us in, or is no disk.
    """
    url = parse_url(path)
    target = RemoteTarget(url.endpoints, _identity(url), patience=patience)
    try:
        await target.open()
        try:
            return await open_remote(target, url.lun, path, kind=ArrayLun)
        except BaseException:
            await target.close()
            raise
    except (ProtocolError, CommandFailed) as error:
        raise UsageError(f"{path} can't be opened: {error}") from error


def _identity(url: UnitUrl) -> Identity:
    """Say who logs in; the initiator's name is the machine's unless the URL gives one."""
    return Identity(
        initiator=url.initiator or f"{IQN_PREFIX}:{os.uname().nodename.lower()}",
        target=url.target,
        isid=(RANDOM_ISID | int.from_bytes(os.urandom(3)) << 8).to_bytes(6),
        chap=_credentials(url.user, url.secret_file),
        mutual=_credentials(url.target_user, url.target_secret_file),
        header_digest=url.header_digest,
        data_digest=url.data_digest,
    )


def _credentials(user: str, secret_file: str) -> Credentials | None:
    return Credentials(user, read_secret(secret_file).encode()) if user else None
