"""The root of everything Tiergate raises on purpose.

A caller's mistake, a peer's violation and damaged data are different things; each has a branch of
its own, so that the edges (shell, SCSI sense, iSCSI reject) can tell them apart by type alone.
"""


class TiergateError(Exception):
    """The root: anything else that escapes is a bug of ours."""


class UsageError(TiergateError):
    """A person or a caller asked for something that can't be done; nothing has changed."""


class ProtocolError(TiergateError):
    """A peer broke the protocol it speaks."""


class CorruptError(TiergateError):
    """Bytes read from a disk are not what was once written there."""
