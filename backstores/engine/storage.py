"""A driver as metadata code sees it: bytes in, bytes out, and a flush."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.metadata.layout import FIXED_END, FRONT_LABELS


class DriverStorage:
    """The ``Storage`` of ``backstores.metadata.store`` on an ALU."""

    def __init__(self, engine: Engine, driver: AluDriver) -> None:
        self._engine = engine
        self._driver = driver
        self._losses: int | None = None  # of the ALU, when the first write since the last flush began

    @property
    def size_bytes(self) -> int:
        """The size of the ALU."""
        return self._driver.size_bytes

    async def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes. Raises AluError."""
        content = bytearray(length)
        await self._engine.read(self._driver, offset, (memoryview(content),))
        return bytes(content)

    async def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; durable after the next ``flush``. Raises AluError."""
        if self._losses is None:
            self._losses = self._engine.losses(self._driver)
        await self._engine.write(self._driver, offset, (memoryview(data),))

    async def flush(self) -> None:
        """Make all that was written durable. Raises AluError."""
        heard, self._losses = self._losses, None
        await self._engine.flush(self._driver, heard)

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Keep all others who change metadata out: the labels and the MDR directory are locked. Raises AluError."""
        return self._engine.exclusive(self._driver, FRONT_LABELS[0], FIXED_END - FRONT_LABELS[0])
