"""What a connection has to send: small pieces are copied together, large ones go by reference.

A batch of commands so leaves with one system call, and the data of a large write is never copied before the
kernel does. The caller leaves a write's data alone until the command has ended.
"""

from __future__ import annotations

from typing import Final

from backstores.iscsi.digest import digest
from backstores.iscsi.negotiate import LOGIN_PARAMETERS, Parameters
from backstores.iscsi.pdu import data_segment
from backstores.wire import Buffer

REFERENCE_BYTES: Final = 16 << 10  # copying less takes hardly longer than noting it


class Outbox:
    """PDUs that wait for the socket. ``parameters`` say which digests they carry."""

    __slots__ = ("_parts", "_small", "parameters")

    def __init__(self) -> None:
        self.parameters: Parameters = LOGIN_PARAMETERS
        self._parts: list[Buffer] = []
        self._small = bytearray()

    def __bool__(self) -> bool:
        return bool(self._small or self._parts)

    def put(self, header: bytes, data: Buffer = b"") -> None:
        """Put one PDU, its padding and digests added."""
        self._small += header
        if self.parameters.header_digest:
            self._small += digest(header)
        if not len(data):
            return
        if self.parameters.data_digest:
            segment = data_segment(data)
            self._small += segment + digest(segment)
        elif len(data) < REFERENCE_BYTES:
            self._small += data
            self._small += bytes(-len(data) % 4)
        else:
            self._parts += (self._small, data)
            self._small = bytearray(-len(data) % 4)

    def take(self) -> list[Buffer]:
        """Give all that waits, and forget it."""
        parts, self._parts = self._parts, []
        if self._small:
            parts.append(self._small)
            self._small = bytearray()
        return [part for part in parts if part]
