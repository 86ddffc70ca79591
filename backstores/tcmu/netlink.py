"""Hears what the kernel announces about TCMU devices (generic netlink).

A change of ``attrib/dev_size`` and its like fails unless somebody listens, and reaches no handler by the ring. So
whoever serves devices joins the group ``config`` of family ``TCM-USER``. Nothing is ever replied: our backstores say
``nl_reply_supported=-1``, so that the kernel does not wait for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from backstores.errors import ProtocolError
from backstores.tcmu.announcements import FAMILY, Announcement, NetlinkError, ask_for_family, parse, parse_family

log = logging.getLogger(__name__)

GROUP: Final = "config"
DATAGRAM_BYTES: Final = 1 << 16
NETLINK_GENERIC: Final = 16  # these three are names that Python's socket does not have
SOL_NETLINK: Final = 270
ADD_MEMBERSHIP: Final = 1


class Listener:
    """Hears announcements until it is closed.

    Raises:
        UsageError: the kernel has no TCMU.
    """

    def __init__(self, heard: Callable[[Announcement], None]) -> None:
        self._heard = heard
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_GENERIC)
        try:
            self._family = self._join()
        except BaseException:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _join(self) -> int:
        """Join the group; the kernel answers questions while they are sent, so that there is nothing to wait for."""
        self._socket.bind((0, 0))
        self._socket.send(ask_for_family(FAMILY))
        family = parse_family(self._socket.recv(DATAGRAM_BYTES))
        if GROUP not in family.groups:
            raise NetlinkError(f"{FAMILY} has no group {GROUP}, only {', '.join(family.groups) or 'none'}")
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, family.groups[GROUP])
        return family.number

    def _read(self) -> None:
        try:
            datagram = self._socket.recv(DATAGRAM_BYTES)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            log.warning("announcements of the kernel were lost: it had more than fit the socket")
            return
        try:
            announcements = parse(datagram, self._family)
        except ProtocolError as error:
            log.warning("an announcement of the kernel can't be read: %s", error)
            return
        for announcement in announcements:
            self._heard(announcement)
