"""CDBs that name a range of blocks: an opcode, some flags, an address and a length (SBC-3 clause 5).

They come in families that differ in the sizes of address and length alone, kept next to each other here.
"""

from __future__ import annotations

from backstores.wire import Bits, Wire


class Read6(Wire, size=6):
    """A length of 0 means 256 blocks, in this size only."""

    opcode = Bits(byte=0, width=8, value=0x08)
    lba = Bits(byte=1, msb=4, width=21)
    blocks = Bits(byte=4, width=8)


class Write6(Wire, size=6):
    """A length of 0 means 256 blocks, in this size only."""

    opcode = Bits(byte=0, width=8, value=0x0A)
    lba = Bits(byte=1, msb=4, width=21)
    blocks = Bits(byte=4, width=8)


class Read10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x28)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class Read12(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xA8)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=6, width=32)


class Read16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x88)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class Write10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x2A)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class Write12(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xAA)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=6, width=32)


class Write16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x8A)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class WriteVerify10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x2E)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class WriteVerify12(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xAE)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=6, width=32)


class WriteVerify16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x8E)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class Verify10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x2F)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class Verify12(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xAF)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=6, width=32)


class Verify16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x8F)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    byte_check = Bits(byte=1, msb=2, width=2)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class SynchronizeCache10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x35)
    immediate = Bits(byte=1, msb=1, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class SynchronizeCache16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x91)
    immediate = Bits(byte=1, msb=1, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class Prefetch10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x34)
    immediate = Bits(byte=1, msb=1, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class Prefetch16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x90)
    immediate = Bits(byte=1, msb=1, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class WriteSame10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x41)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    anchor = Bits(byte=1, msb=4, width=1, value=0)
    unmap = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)


class WriteSame16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x93)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    anchor = Bits(byte=1, msb=4, width=1, value=0)
    unmap = Bits(byte=1, msb=3, width=1)
    no_data = Bits(byte=1, msb=0, width=1, doc="NDOB")
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class Orwrite(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x8B)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


class CompareAndWrite(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x89)
    protect = Bits(byte=1, msb=7, width=3, value=0)
    dpo = Bits(byte=1, msb=4, width=1)
    fua = Bits(byte=1, msb=3, width=1)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=13, width=8)


AnyRead = Read10 | Read12 | Read16
AnyWrite = Write10 | Write12 | Write16
AnyWriteVerify = WriteVerify10 | WriteVerify12 | WriteVerify16
AnyVerify = Verify10 | Verify12 | Verify16
AnySynchronizeCache = SynchronizeCache10 | SynchronizeCache16
AnyPrefetch = Prefetch10 | Prefetch16
AnyWriteSame = WriteSame10 | WriteSame16
