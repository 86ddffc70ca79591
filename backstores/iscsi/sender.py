"""What one connection sends: PDUs put one behind the other into a buffer, with their serial numbers.

The buffer belongs to the portal and is shared by all its connections, for it is empty whenever none of
them is being served: the portal takes what was put there before it turns to the next. A connection at
rest so costs no output memory.
"""

from __future__ import annotations

from typing import Any, Final

from backstores.iscsi.digest import digest
from backstores.iscsi.limits import QUEUE_DEPTH
from backstores.iscsi.negotiate import LOGIN_PARAMETERS, Parameters
from backstores.iscsi.pdu import data_segment
from backstores.iscsi.serial import MASK, after
from backstores.wire import Buffer, Wire

FLUSH_BYTES: Final = 256 << 10  # send at this fill: 64 KiB cost a fifth of the speed of 128 KiB reads
LONG_READ_BYTES: Final = 1 << 20  # the longest READ that the hot path puts into the buffer at once
SCRATCH_BYTES: Final = FLUSH_BYTES + LONG_READ_BYTES + (256 << 10)


class Sender:
    """The sending side of a connection. ``window`` is how far MaxCmdSN lies ahead of ExpCmdSN."""

    __slots__ = ("exp_cmd_sn", "parameters", "raw", "stat_sn", "used", "view", "window")

    def __init__(self, scratch: bytearray) -> None:
        self.raw = scratch
        self.view = memoryview(scratch)
        self.used = 0
        self.stat_sn = 0
        self.exp_cmd_sn = 0
        self.window = QUEUE_DEPTH - 1
        self.parameters: Parameters = LOGIN_PARAMETERS

    @property
    def full(self) -> bool:
        """True when the buffer must be sent before more is put there."""
        return self.used >= FLUSH_BYTES

    def put(self, pdu: type[Wire], data: Buffer = b"", **fields: Any) -> None:
        """Put a PDU that uses no StatSN; its other serial numbers are filled in."""
        if "data_bytes" in pdu.FIELDS:
            fields["data_bytes"] = len(data)
        header = pdu.build(exp_cmd_sn=self.exp_cmd_sn, max_cmd_sn=self.exp_cmd_sn + self.window & MASK, **fields)
        self._append(header)
        if self.parameters.header_digest:
            self._append(digest(header))
        if len(data):
            if self.parameters.data_digest:
                segment = data_segment(data)
                self._append(segment + digest(segment))
            else:
                self._append(data)
                self._append(bytes(-len(data) % 4))

    def reply(self, pdu: type[Wire], data: Buffer = b"", **fields: Any) -> None:
        """Put a PDU that uses up a StatSN."""
        self.put(pdu, data, stat_sn=self.stat_sn, **fields)
        self.stat_sn = after(self.stat_sn)

    def _append(self, part: Buffer) -> None:
        end = self.used + len(part)
        assert end <= len(self.raw), f"{end} bytes of output, the buffer has {len(self.raw)}"
        self.view[self.used : end] = part
        self.used = end
