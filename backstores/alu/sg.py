"""CDBs straight to a SCSI disk, by the kernel's SG_IO (scsi/sg.h); blocking calls, for a worker (R5)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from backstores.alu.base import PAGE_BYTES

SG_IO: Final = 0x2285
SG_GET_VERSION_NUM: Final = 0x2282
LEAST_VERSION: Final = 30000  # of the interface that has ``sg_io_hdr``
INTERFACE: Final = ord("S")
NO_DATA, TO_DEVICE, FROM_DEVICE = -1, -2, -3
SENSE_BYTES: Final = 252  # SPC-4 clause 4.5.1
TIMEOUT_MS: Final = 120_000
SYSFS: Final = Path("/sys/dev/block")

INQUIRY: Final = bytes((0x12, 0, 0, 0, 36, 0))
DISK: Final = 0x00  # peripheral qualifier and device type of a disk that is there (SPC-4 clause 6.6.2)


class Header(ctypes.Structure):
    """``struct sg_io_hdr``."""

    _fields_ = (
        ("interface", ctypes.c_int),
        ("direction", ctypes.c_int),
        ("cdb_bytes", ctypes.c_ubyte),
        ("most_sense_bytes", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("data_bytes", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("cdb", ctypes.c_void_p),
        ("sense", ctypes.c_void_p),
        ("timeout_ms", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("message_status", ctypes.c_ubyte),
        ("sense_bytes", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("residual_bytes", ctypes.c_int),
        ("duration_ms", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class Answer(NamedTuple):
    """What came back. ``host_status`` is not 0 where the device was not reached, or did not answer."""

    status: int
    sense: bytes
    data: bytes
    host_status: int


def send(fd: int, cdb: bytes, data_out: memoryview | bytes, data_in_bytes: int) -> Answer:
    """Have the device carry a CDB out. Data go one way: out, or in.

    Raises:
        OSError: the kernel did not take it.
    """
    assert not (data_out and data_in_bytes)
    content = bytearray(data_out) if data_out else bytearray(data_in_bytes)
    sense = ctypes.create_string_buffer(SENSE_BYTES)
    command = ctypes.create_string_buffer(cdb, len(cdb))
    room = (ctypes.c_char * len(content)).from_buffer(content)
    header = Header(
        interface=INTERFACE,
        direction=TO_DEVICE if data_out else FROM_DEVICE if data_in_bytes else NO_DATA,
        cdb_bytes=len(cdb),
        most_sense_bytes=SENSE_BYTES,
        data_bytes=len(content),
        data=ctypes.addressof(room),
        cdb=ctypes.addressof(command),
        sense=ctypes.addressof(sense),
        timeout_ms=TIMEOUT_MS,
    )
    fcntl.ioctl(fd, SG_IO, header)
    moved = max(0, min(len(content), len(content) - header.residual_bytes))
    data = bytes(memoryview(content)[:moved]) if data_in_bytes else b""
    return Answer(header.status, sense.raw[: min(header.sense_bytes, SENSE_BYTES)], data, header.host_status)


def most_bytes(fd: int, sysfs: Path = SYSFS) -> int | None:
    """Say how much one CDB can move; None: CDBs can't be sent there.

    Not to a partition, though the kernel would take them from root: their addresses would be the whole disk's.

    Raises:
        OSError: the device can't be asked.
    """
    number = os.fstat(fd).st_rdev
    folder = sysfs / f"{os.major(number)}:{os.minor(number)}"
    if (folder / "partition").exists() or not _speaks_scsi(fd):
        return None
    queue = folder / "queue"
    sectors = int((queue / "max_sectors_kb").read_text()) << 10
    # Of memory that is not aligned each page may be a segment, and one more for what the first begins with.
    segments = (int((queue / "max_segments").read_text()) - 1) * PAGE_BYTES
    return max(PAGE_BYTES, min(sectors, segments) // PAGE_BYTES * PAGE_BYTES)


def _speaks_scsi(fd: int) -> bool:
    try:
        answer = fcntl.ioctl(fd, SG_GET_VERSION_NUM, bytes(struct.calcsize("i")))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    if struct.unpack("i", answer)[0] < LEAST_VERSION:
        return False
    found = send(fd, INQUIRY, b"", INQUIRY[4])
    return not (found.status or found.host_status) and found.data[:1] == bytes([DISK])
