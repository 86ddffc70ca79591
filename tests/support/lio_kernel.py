"""The kernel's side of configfs as far as our steps reach it: it refuses what the kernel would refuse, or hang on."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.lio.plan import (
    BLOCK,
    RESET,
    MakeFolder,
    MakeLink,
    Present,
    RemoveFolder,
    RemoveLink,
    RestoreReservations,
    Set,
    StartHandler,
    Step,
    StopHandler,
    after,
)
from appliance.lio.tree import ENABLE, Kind, Node

BEFORE_EXPORT = ("attrib/cmd_time_out", "wwn/vpd_unit_serial")
FABRIC_FOLDERS = ("lun", "acls", "np")  # the kernel makes these in each portal group


class Refused(AssertionError):
    """A step that the kernel would not take."""


class LioKernel:
    """Takes steps one by one. ``present`` is what stands there."""

    def __init__(self, present: Present | None = None) -> None:
        self.present = Present({}) if present is None else present
        self.reset: set[str] = set()

    def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.take(step)

    def take(self, step: Step) -> None:
        """Carry a step out, or refuse it."""
        self._check(step)
        if isinstance(step, Set) and step.name == RESET:
            self.reset.add(step.path)
        self.present = after(self.present, step)

    def killed(self) -> None:
        """The appliance dies: nobody handles any backstore."""
        self.present = Present(self.present.nodes, self.present.foreign)
        self.reset.clear()

    def _check(self, step: Step) -> None:
        nodes = self.present.nodes
        self._demand(step.path not in self.present.foreign, f"{step} touches what is not ours")
        if isinstance(step, MakeFolder):
            self._demand(step.path not in nodes, f"{step}: exists")
            self._demand(_parent(step.path) in nodes or step.kind in (Kind.HBA, Kind.TARGET), f"{step}: no parent")
            return
        self._demand(step.path in nodes, f"{step}: not there")
        node = nodes[step.path]
        match step:
            case RemoveFolder(path):
                below = [p for p in (*nodes, *self.present.foreign) if p.startswith(f"{path}/")]
                self._demand(not below, f"{step}: not empty: {below}")
                self._demand(not node.link and not self._users(path), f"{step}: in use")
                self._demand(path not in self.present.handled, f"{step}: its handler runs")
            case Set():
                self._check_setting(step, node)
            case MakeLink(_, link):
                self._demand(not node.link, f"{step}: linked already")
                self._demand(link in nodes, f"{step}: leads nowhere")
                if nodes[link].kind is Kind.BACKSTORE:
                    self._demand(link in self.present.handled, f"{step}: nobody answers")
            case RemoveLink():
                self._demand(bool(node.link), f"{step}: no link")
                self._demand(self._answered(node), f"{step}: hangs, nobody answers the backstore")
            case RestoreReservations(path):
                self._demand(node.settings.get(ENABLE) == "1", f"{step}: no device")
                self._demand(not self._users(path), f"{step}: while exported")
            case StartHandler(path):
                self._demand(path not in self.present.handled, f"{step}: runs already")
                self._demand(node.settings.get(ENABLE) == "1", f"{step}: no device")
            case StopHandler(path):
                self._demand(path in self.present.handled, f"{step}: does not run")
                self._demand(not self._users(path), f"{step}: has LUNs")

    def _check_setting(self, step: Set, node: Node) -> None:
        if node.kind is Kind.BACKSTORE:
            if step.name in (BLOCK, RESET):
                self._demand(node.settings.get(ENABLE) == "1", f"{step}: not configured")
            elif step.name == ENABLE:
                self._demand("control" in node.settings, f"{step}: not configured")
                self._demand(ENABLE not in node.settings, f"{step}: enabled already")
            elif step.name in BEFORE_EXPORT:
                self._demand(not self._users(step.path), f"{step}: while exported")
        if node.kind is Kind.MAPPED_LUN:
            self._demand(bool(node.link), f"{step}: not linked")

    def _answered(self, node: Node) -> bool:
        """Whether commands that run through a link will end."""
        target = self.present.nodes[node.link]
        if target.kind is Kind.LUN:
            return not target.link or self._answered(target)
        return node.link in self.present.handled or node.link in self.reset

    def _users(self, path: str) -> list[str]:
        return [p for p, node in self.present.nodes.items() if node.link == path]

    @staticmethod
    def _demand(condition: bool, message: str) -> None:
        if not condition:
            raise Refused(message)


def _parent(path: str) -> str:
    above, _, _ = path.rpartition("/")
    return above.rpartition("/")[0] if above.rpartition("/")[2] in FABRIC_FOLDERS else above
