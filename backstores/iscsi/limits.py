"""The numbers that bound what a peer can cost us (S1, S3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_SEGMENT_BYTES: Final = 262144  # our MaxRecvDataSegmentLength once logged in; quadruples small ones' speed
LOGIN_SEGMENT_BYTES: Final = 8192  # both sides' limit before (RFC 7143, 13.12)
MAX_BURST_BYTES: Final = 1 << 20
FIRST_BURST_BYTES: Final = 262144

LOGIN_BUFFER_BYTES: Final = 65536  # received but not handled, before login
TEXT_BYTES: Final = 16384  # one negotiation, however many PDUs carry it
QUEUE_DEPTH: Final = 128  # commands in flight on a session
IMMEDIATE_DEPTH: Final = 16  # immediate commands besides: they are outside the CmdSN window
HELD_BYTES: Final = 1 << 20  # commands that came before their turn
TASK_BYTES: Final = 32 << 20  # data of one command
CONNECTION_BYTES: Final = 64 << 20  # data of all commands of a connection
NODE_BYTES: Final = 512 << 20  # and of all connections; each may have one command beyond it
SESSIONS_PER_INITIATOR: Final = 64
PDUS_A_TURN: Final = 32  # on the general path, before the portal looks at the clock


@dataclass(frozen=True, slots=True)
class Limits:
    """What an appliance may set otherwise: times in seconds, connections by number."""

    login_s: float = 15
    idle_s: float = 30  # silence after which a NOP-In asks for a sign of life
    answer_s: float = 15  # and how long its answer may take
    data_out_s: float = 30  # how long solicited data may stall
    connections: int = 1024
    unauthenticated_per_address: int = 64
