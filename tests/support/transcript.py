"""Plays transcripts: files of commands, each followed by what the control plane then logs, in virtual time.

    python -m tests.support.transcript tests/appliance/vcm/transcripts/*.txt

writes into the files what happens now. Read the difference before you commit it. Lines that begin with # are comments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.control.reports import LegsLost
from appliance.control.requests import CreateVolume, DeleteVolume, ReplaceVolume, SetLocation
from appliance.simulation.history import grown
from appliance.simulation.invariants import after_quiet, at_every_moment, built_whole
from appliance.simulation.plant import Builder, make_site, shown_by
from appliance.simulation.system import Conditions, System
from backstores.objects import AnyObject, MirrorObject, VolumeObject

STEADY: Final = Conditions(delay_s=(0.005, 0.005), work_s=(0.01, 0.01))


class Player:
    """A system, and its volumes by the names that the transcript gives them."""

    def __init__(self) -> None:
        self.system: System | None = None
        self.builder = Builder()
        self.volumes: dict[str, tuple[AnyObject, ...]] = {}

    def play(self, text: str) -> str:
        """Carry out the commands of a transcript; give it with what happens now."""
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("#") or not line:
                lines.append(line)
            elif line.startswith("> "):
                lines.append(line)
                lines += self._do(line[2:].split())
        return "\n".join(lines) + "\n"

    def _do(self, words: Sequence[str]) -> list[str]:
        COMMANDS[words[0]](self, *words[1:])
        assert self.system is not None
        told, self.system.log = self.system.log, []
        return [f"  {at_s:7.3f}  {text}" for at_s, text in told]

    def start(self, sps: str, alus: str) -> None:
        """Have a system that has started."""
        self.initialize(sps, alus, "2")
        self._system().log.clear()

    def initialize(self, sps: str, alus: str, reach: str) -> None:
        """Make a system whose ALUs hang on ``reach`` storage processors each, and see it start."""
        site, shelf = make_site(int(sps), int(alus), int(reach))
        self.system = System(site, shelf, 1, at_every_moment, built_whole)
        self.system.conditions = STEADY
        assert self.system.mic is not None
        self.system.mic.attached = list(shelf.alus)
        self.system.start_all()
        self.system.run(1.0)

    def create(self, name: str, layout: str, alus: str, sps: str = "") -> None:
        """Make a volume on some ALUs, seen by a host through some storage processors."""
        system = self._system()
        wwns = [system.shelf.alus[path].wwn for path in alus.split(",")]
        objects = self.volumes[name] = self.builder.volume(layout, wwns)
        system.ask(CreateVolume(objects=objects))
        self.show(name, sps)

    def show(self, name: str, sps: str = "") -> None:
        """Have a host see a volume through some storage processors."""
        system = self._system()
        wwn = self.volumes[name][0].wwn
        assert system.mic is not None
        system.mic.shows[wwn] = shown_by(wwn, sps.split(",") if sps else [])
        system.ask(SetLocation(volume=wwn, show=system.mic.shows[wwn]))

    def replace(self, name: str) -> None:
        """Change a volume's tree."""
        head, *below = self._system().shelf.trees()[self.volumes[name][0].wwn]
        assert isinstance(head, VolumeObject)
        self._system().ask(ReplaceVolume(objects=(grown(head), *below)))

    def delete(self, name: str) -> None:
        """Delete a volume."""
        self._system().ask(DeleteVolume(volume=self.volumes[name][0].wwn))

    def lose(self, name: str, leg: str) -> None:
        """Let a leg of a volume's first mirror fail: whoever serves it notices."""
        mirror = next(obj for obj in self.volumes[name] if isinstance(obj, MirrorObject))
        report = LegsLost(volume=mirror.volume, generation=0, legs=(mirror.legs[int(leg)].child,))
        for sp in self._system().site.sps:
            self._system().lose_legs(sp, report)

    def kill(self, name: str) -> None:
        """End a process; it is started again."""
        system = self._system()
        {"vcm": system.kill_vcm, "mic": system.kill_mic}.get(name, lambda: system.kill_sp(name))()

    def sleep(self, name: str, for_s: str) -> None:
        """Stop a storage processor for a while."""
        self._system().sleep_sp(name, float(for_s))

    def cut(self, name: str, for_s: str) -> None:
        """Cut a storage processor off from the VCM for a while."""
        self._system().cut(name, float(for_s))

    def work(self, for_s: str) -> None:
        """Let each order that is begun from now on take this long."""
        self._system().conditions = replace(STEADY, work_s=(float(for_s), float(for_s)))

    def run(self, for_s: str) -> None:
        """Let time go on."""
        self._system().run(float(for_s))

    def check(self) -> None:
        """See that everything is as it should be."""
        after_quiet(self._system())

    def _system(self) -> System:
        assert self.system is not None, "a transcript begins with: > start SPS ALUS"
        return self.system


COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "start": Player.start,
    "initialize": Player.initialize,
    "create": Player.create,
    "show": Player.show,
    "replace": Player.replace,
    "delete": Player.delete,
    "lose": Player.lose,
    "kill": Player.kill,
    "sleep": Player.sleep,
    "cut": Player.cut,
    "work": Player.work,
    "run": Player.run,
    "check": Player.check,
}


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(Player().play(path.read_text()))
