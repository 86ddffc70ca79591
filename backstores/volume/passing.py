"""The way of a CDB to the device that a direct volume is: what the kernel says of it becomes a SCSI response (R5)."""

from __future__ import annotations

import errno
import logging
from typing import Final

from backstores.alu import sg
from backstores.alu.base import AluDriver, AluError, AluOp, Kind
from backstores.alu.descriptor import DescriptorDriver
from backstores.engine.engine import Engine
from backstores.scsi.model import Response, Status
from backstores.scsi.sense import Condition, Sense, encode
from backstores.scsi.steps import PassThrough

log = logging.getLogger(__name__)

NO_CONNECT: Final = frozenset({0x01, 0x04})
"""Host bytes that say that the device is not there: DID_NO_CONNECT, DID_BAD_TARGET (linux/scsi/scsi_status.h)."""


class SgPasser:
    """Implements ``backstores.scsi.steps.Passer`` for a block device."""

    def __init__(self, engine: Engine, driver: DescriptorDriver, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._engine = engine
        self._driver = driver

    async def send(self, step: PassThrough) -> Response:
        """Have the device carry a CDB out, in a worker."""
        fd = self._driver.fd
        try:
            answer = await self._engine.call(self._driver, sg.send, fd, step.cdb, step.data_out, step.data_in_bytes)
        except (OSError, AluError) as error:
            log.error("%s did not take command %#04x: %s", self._driver.path, step.cdb[0], error)
            return failed(Condition.INTERNAL_TARGET_FAILURE)
        if answer.host_status:
            log.error("%s was not reached by command %#04x: %#04x", self._driver.path, step.cdb[0], answer.host_status)
            absent = answer.host_status in NO_CONNECT
            return failed(Condition.CAUSE_NOT_REPORTABLE if absent else Condition.INTERNAL_TARGET_FAILURE)
        return response(answer)


async def passer_of(engine: Engine, driver: AluDriver) -> SgPasser | None:
    """Find out whether CDBs can be sent to an ALU; None: they can't.

    Raises:
        AluError: it does not answer.
    """
    if driver.kind is not Kind.BLOCK or not isinstance(driver, DescriptorDriver):
        return None
    try:
        most_bytes = await engine.call(driver, sg.most_bytes, driver.fd)
    except OSError as error:
        raise AluError.of(driver.path, AluOp.STATUS, 0, error.errno or errno.EIO) from error
    return None if most_bytes is None else SgPasser(engine, driver, most_bytes)


def response(answer: sg.Answer) -> Response:
    """Give a device's own answer. A status that SAM-5 does not know, or an error without sense data, is our failure."""
    try:
        status = Status(answer.status)
    except ValueError:
        return failed(Condition.INTERNAL_TARGET_FAILURE)
    if status is Status.CHECK_CONDITION and not answer.sense:
        return failed(Condition.INTERNAL_TARGET_FAILURE)
    return Response(status, answer.sense, answer.data)


def failed(condition: Condition) -> Response:
    """Tell a condition of ours."""
    return Response(Status.CHECK_CONDITION, encode(Sense(condition)))
