"""LIO as a front end: what it makes of volumes, hosts and failures, on the kernel's twin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from appliance.lio.configfs import Configfs, FolderStep, LioError
from appliance.lio.front_end import Lio
from appliance.lio.plan import MakeFolder, Present, Set
from appliance.lio.tree import Group, Kind, Node, Site, wanted
from appliance.messages import Exposure, HostDefinition
from backstores.device import MemoryDevice
from backstores.errors import ProtocolError, TiergateError, UsageError
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wwn import Wwn
from tests.support.lio_kernel import LioKernel

SITE = Site("1a2b3c4d", "iqn.2026-11.example.tiergate:t1", (Group(1, ("127.0.0.1:3260",)),))
A, B = (Wwn(f"6025447{number:025x}") for number in (1, 2))
WEB1 = HostDefinition(name="web1", iqn="iqn.2026-01.example:web1")
WEB2 = HostDefinition(name="web2", iqn="iqn.2026-01.example:web2")


class TwinConfigfs(Configfs):
    """The kernel's twin in the place of configfs. ``refuse``: the path of which the next step fails."""

    def __init__(self, kernel: LioKernel) -> None:
        super().__init__(Path("/nonexistent"))
        self.kernel = kernel
        self.refuse = ""
        self.refused: type[FolderStep] = MakeFolder
        self.steps: list[FolderStep] = []

    def read(self, site: Site) -> Present:
        return Present(self.kernel.present.nodes, self.kernel.present.foreign)

    def carry_out(self, step: FolderStep) -> None:
        if self.refuse and step.path.startswith(self.refuse) and isinstance(step, self.refused):
            raise LioError(step.path, f"refused: {step.path}")
        self.kernel.take(step)
        self.steps.append(step)


class Machine:
    """A front end on twins of the kernel and of handlers, and the volumes it serves."""

    def __init__(self, kernel: LioKernel | None = None) -> None:
        self.kernel = LioKernel() if kernel is None else kernel
        self.configfs = TwinConfigfs(self.kernel)
        self.units: dict[Wwn, LogicalUnit] = {}
        self.busy: set[str] = set()
        self.lose: dict[str, Callable[[TiergateError], None]] = {}
        self.front_end = Lio(SITE, self.units.get, self.open_handler, TwinListener, self.configfs)

    def on_line(self, *volumes: Wwn) -> None:
        for wwn in volumes:
            self.units[wwn] = LogicalUnit(MemoryDevice(2048), Identity(wwn))

    async def open_handler(
        self, folder: str, unit: LogicalUnit, on_lost: Callable[[TiergateError], None]
    ) -> TwinHandler:
        if folder in self.busy:
            raise UsageError(f"can't open the device of {folder}: end the process that serves it")
        self.lose[folder] = on_lost
        return TwinHandler(self.kernel, folder)

    def luns(self, host: HostDefinition) -> dict[int, Wwn]:
        """What a host sees, by following the links."""
        nodes = self.kernel.present.nodes
        acl = f"{SITE.group(1)}/acls/{host.iqn}/lun_"
        return {
            int(path.removeprefix(acl)): SITE.wwn_of(nodes[node.link].link)
            for path, node in nodes.items()
            if path.startswith(acl)
        }


class TwinListener:
    """Hears nothing. ``open`` counts those that are not closed."""

    open = 0

    def __init__(self) -> None:
        TwinListener.open += 1

    def close(self) -> None:
        TwinListener.open -= 1


class TwinHandler:
    """Tells the kernel's twin that a backstore is answered."""

    def __init__(self, kernel: LioKernel, folder: str) -> None:
        self.kernel, self.folder = kernel, folder
        self._tell(kernel.present.handled | {folder})

    async def close(self) -> None:
        self._tell(self.kernel.present.handled - {self.folder})

    def _tell(self, handled: frozenset[str]) -> None:
        self.kernel.present = Present(self.kernel.present.nodes, self.kernel.present.foreign, handled)


def rows(*found: tuple[HostDefinition, Wwn, int]) -> Sequence[Exposure]:
    return [Exposure(host=host.name, volume=volume, lun=lun) for host, volume, lun in found]


def test_each_host_sees_its_own_volumes_under_its_own_luns() -> None:
    """R15: and a volume that is off line is not there until it comes."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A)
        await machine.front_end.set([WEB1, WEB2], rows((WEB1, A, 3), (WEB1, B, 0), (WEB2, B, 7)))
        assert not machine.configfs.steps, "before the start it only takes notes"
        await machine.front_end.start()
        assert (machine.luns(WEB1), machine.luns(WEB2)) == ({3: A}, {})
        machine.on_line(B)
        await machine.front_end.refresh()
        assert (machine.luns(WEB1), machine.luns(WEB2)) == ({3: A, 0: B}, {7: B})
        await machine.front_end.release(B)
        assert (machine.luns(WEB1), machine.luns(WEB2)) == ({3: A}, {})
        await machine.front_end.close()
        assert machine.kernel.present == Present({})
        assert TwinListener.open == listening, "it listens no longer than it serves"

    listening = TwinListener.open
    asyncio.run(scenario())


def test_a_successor_takes_over_and_touches_nothing_that_is_right() -> None:
    """R31: after a kill the sessions, LUNs and backstores stay; only rings are reset, and handlers run again."""

    async def scenario() -> None:
        first = Machine()
        first.on_line(A, B)
        configuration = [WEB1], rows((WEB1, A, 0), (WEB1, B, 1))
        await first.front_end.set(*configuration)
        await first.front_end.start()
        before = first.kernel.present
        first.kernel.killed()
        second = Machine(first.kernel)
        second.on_line(A, B)
        await second.front_end.set(*configuration)
        await second.front_end.start()
        assert second.kernel.present == before
        assert {step.name for step in second.configfs.steps} == {"action/block_dev", "action/reset_ring"}

    asyncio.run(scenario())


def test_a_change_that_the_kernel_refuses_leaves_all_as_it_was() -> None:
    """R31: nothing half made is left in configfs, and the command that asked for it fails."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A, B)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0)))
        await machine.front_end.start()
        before = machine.kernel.present
        machine.configfs.refuse = f"{SITE.group(1)}/acls/{WEB2.iqn}/lun_7"
        with pytest.raises(UsageError, match=r"refused: .*lun_7"):
            await machine.front_end.set([WEB1, WEB2], rows((WEB1, A, 0), (WEB2, B, 7)))
        assert machine.kernel.present == before
        machine.configfs.refuse = ""
        await machine.front_end.refresh()
        assert machine.kernel.present == before, "what was refused does not come back by another way"

    asyncio.run(scenario())


def test_one_backstore_that_can_not_be_made_holds_no_other_volume_up() -> None:
    """C3: it is left out, and tried again when volumes come."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A, B)
        machine.configfs.refuse = SITE.backstore(A)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0), (WEB1, B, 1)))
        await machine.front_end.start()
        assert machine.luns(WEB1) == {1: B}
        machine.configfs.refuse = ""
        await machine.front_end.refresh()
        assert machine.luns(WEB1) == {0: A, 1: B}

    asyncio.run(scenario())


def test_a_change_stands_though_what_was_left_out_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    """C3: whatever it is that the kernel refuses about the other volume."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A, B)
        machine.configfs.refuse = SITE.backstore(A)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0), (WEB1, B, 1)))
        await machine.front_end.start()
        machine.configfs.refuse = f"{SITE.group(1)}/lun"
        for lun in (4, 5):
            await machine.front_end.set([WEB1, WEB2], rows((WEB1, A, 0), (WEB1, B, 1), (WEB2, B, lun)))
            assert (machine.luns(WEB1), machine.luns(WEB2)) == ({1: B}, {lun: B})
        machine.configfs.refuse = ""
        await machine.front_end.refresh()
        assert machine.luns(WEB1) == {0: A, 1: B}

    asyncio.run(scenario())
    assert "what was left out can't be served yet: refused" in caplog.text


def test_a_device_that_another_process_serves_holds_no_other_volume_up(caplog: pytest.LogCaptureFixture) -> None:
    """C3: at a take-over, too; the line says what to do, and the volume comes when the device is free."""

    async def scenario() -> None:
        first = Machine()
        first.on_line(A, B)
        configuration = [WEB1], rows((WEB1, A, 0), (WEB1, B, 1))
        await first.front_end.set(*configuration)
        await first.front_end.start()
        first.kernel.killed()
        second = Machine(first.kernel)
        second.on_line(A, B)
        second.busy.add(SITE.backstore(A))
        await second.front_end.set(*configuration)
        await second.front_end.start()
        assert second.luns(WEB1) == {1: B}
        second.busy.clear()
        await second.front_end.set([WEB1, WEB2], configuration[1])
        assert second.luns(WEB1) == {0: A, 1: B}

    asyncio.run(scenario())
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.endswith("end the process that serves it")


def test_a_start_that_fails_leaves_nothing() -> None:
    """R31: as with a port that is taken."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A)
        machine.configfs.refuse = f"{SITE.group(1)}/np"
        await machine.front_end.set([WEB1], rows((WEB1, A, 0)))
        with pytest.raises(LioError, match=r"refused: .*/np/"):
            await machine.front_end.start()
        assert machine.kernel.present == Present({})

    asyncio.run(scenario())


def test_a_target_of_somebody_else_is_left_alone() -> None:
    """R31: under our name, too; the line says so."""

    async def scenario() -> None:
        theirs = Present({}, frozenset({SITE.target, f"{SITE.target}/tpgt_1"}))
        machine = Machine(LioKernel(theirs))
        with pytest.raises(UsageError, match="was not made by this appliance"):
            await machine.front_end.start()
        assert machine.kernel.present == theirs

    asyncio.run(scenario())


def test_growth_reaches_the_kernel() -> None:
    """R16: dev_size follows the volume."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0)))
        await machine.front_end.start()
        machine.units[A].device = MemoryDevice(4096)
        await machine.front_end.refresh()
        node = machine.kernel.present.nodes[SITE.backstore(A)]
        assert node.settings["attrib/dev_size"] == str(4096 * 512)

    asyncio.run(scenario())


def test_a_backstore_that_can_not_be_changed_stays_as_it_was() -> None:
    """R16: the LUN is not taken from under its hosts, and other volumes still come."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0), (WEB1, B, 1)))
        await machine.front_end.start()
        before = machine.kernel.present.nodes[SITE.backstore(A)]
        machine.configfs.refuse, machine.configfs.refused = SITE.backstore(A), Set
        machine.units[A].device = MemoryDevice(4096)
        machine.on_line(B)
        await machine.front_end.refresh()
        assert machine.luns(WEB1) == {0: A, 1: B}
        assert machine.kernel.present.nodes[SITE.backstore(A)] == before
        machine.configfs.refuse = ""
        await machine.front_end.refresh()
        assert machine.kernel.present.nodes[SITE.backstore(A)] != before

    asyncio.run(scenario())


def test_a_handler_that_lost_its_ring_is_started_anew() -> None:
    """R31: its commands end BUSY, and hosts go on without an error."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A)
        await machine.front_end.set([WEB1], rows((WEB1, A, 0)))
        await machine.front_end.start()
        before = machine.kernel.present
        machine.configfs.steps.clear()
        machine.lose[SITE.backstore(A)](ProtocolError("a broken ring"))
        await asyncio.sleep(0)  # lets the recovery take the lock
        await machine.front_end.refresh()
        assert machine.kernel.present == before
        assert [(step.name, step.value) for step in machine.configfs.steps if isinstance(step, Set)] == [
            ("action/block_dev", "1"),
            ("action/reset_ring", "1"),
            ("action/block_dev", "0"),
        ]

    asyncio.run(scenario())


def test_what_lio_can_not_express_is_refused_when_it_is_new_and_left_out_when_it_was_there() -> None:
    """R33: an appliance that moves to LIO starts with what can be served."""

    async def scenario() -> None:
        machine = Machine()
        machine.on_line(A, B)
        pattern = HostDefinition(name="lab", iqn="iqn.2026-01.example:lab-*")
        await machine.front_end.set([WEB1, pattern], rows((WEB1, A, 0), (pattern, B, 0)))
        await machine.front_end.start()
        assert machine.luns(WEB1) == {0: A}
        assert not [path for path in machine.kernel.present.nodes if "lab" in path]
        await machine.front_end.set([WEB1, WEB2, pattern], rows((WEB1, A, 0), (WEB2, A, 0), (pattern, B, 0)))
        assert machine.luns(WEB2) == {0: A}
        other = HostDefinition(name="lab2", iqn="iqn.2026-02.example:*")
        with pytest.raises(UsageError, match="knows no patterns"):
            await machine.front_end.set([WEB1, other], [])

    asyncio.run(scenario())


def test_a_portal_group_of_ours_is_told_by_its_alias() -> None:
    """R31: what a tree wants first of a portal group is the mark by which we know it again."""
    node: Node = wanted(SITE, {}, [], [], {})[SITE.group(1)]
    assert node.kind is Kind.GROUP
    assert next(iter(node.settings)) == "param/TargetAlias"
