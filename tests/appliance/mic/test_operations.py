"""One change at a time, reads at any time, and a history of how changes ended (C2, R14)."""

from __future__ import annotations

import asyncio

import pytest

from appliance.messages import AluStatus, HostDefinition, SessionStatus
from appliance.mic.commands import bind
from appliance.mic.management import Management
from appliance.mic.operations import KEPT_OPERATIONS, Dispatcher
from appliance.mic.settings import Settings
from appliance.mic.views import untold
from backstores.errors import TiergateError
from tests.appliance.mic.conftest import NOW, Site
from tests.support.fake_sp import FakeSp, MemoryStore


class SlowSp(FakeSp):
    """Attaches when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.attaching, self.go_on = asyncio.Event(), asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        self.running += 1
        self.attaching.set()
        self.most_running = max(self.most_running, self.running)
        await self.go_on.wait()
        self.running -= 1
        return await super().attach(path, size_bytes)


def attach(number: int) -> tuple[str, str, dict[str, str | int | bool]]:
    """Give the words of an attach."""
    return "/alus", "attach", {"path": f"/x/a{number}.img", "size": "1G"}


def test_changes_go_one_at_a_time_and_reads_do_not_wait() -> None:
    async def scenario() -> None:
        sp = SlowSp()
        management = Management(MemoryStore(), sp)
        await management.start()
        dispatcher = Dispatcher(management)
        changes = [asyncio.create_task(dispatcher.run(bind(*attach(n)), untold)) for n in range(3)]
        await sp.attaching.wait()
        assert await dispatcher.run(bind("/alus", "list", {}), untold) == ()
        assert [operation.state for operation in await management.history.rows()] == ["running"] * 3
        sp.go_on.set()
        await asyncio.gather(*changes)
        assert sp.most_running == 1
        assert len(sp.alus()) == 3

    asyncio.run(scenario())


def test_a_change_goes_on_when_whoever_asked_has_gone() -> None:
    """C2: what takes long can be left and looked up."""

    async def scenario() -> None:
        sp = SlowSp()
        management = Management(MemoryStore(), sp, clock=lambda: NOW)
        await management.start()
        dispatcher = Dispatcher(management)
        asked = asyncio.create_task(dispatcher.run(bind(*attach(0)), untold))
        await sp.attaching.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        sp.go_on.set()
        await dispatcher.close()
        (operation,) = await management.history.rows()
        assert (operation.state, operation.message) == ("done", "alu a0 is attached: 1 GiB, owned")
        assert operation.ended == NOW.isoformat()

    asyncio.run(scenario())


def test_a_command_that_comes_before_the_settings_waits_for_them() -> None:
    """It would replace what it has not seen yet."""

    async def scenario() -> None:
        store = MemoryStore(Settings(hosts=(HostDefinition(name="old", iqn="*"),)))
        management = Management(store, FakeSp())
        early = asyncio.create_task(
            Dispatcher(management).run(bind("/hosts", "create", {"name": "new", "iqn": "iqn.2026-01.a:b"}), untold)
        )
        await asyncio.sleep(0)
        await management.start()
        await early
        assert [host.name for host in store.settings.hosts] == ["new", "old"]

    asyncio.run(scenario())


def test_the_history_tells_what_was_asked_and_how_it_ended(site: Site) -> None:
    """R14: the history of changes; it says no more than path, command and name."""
    site.do("/alus", "attach", path="/x/a0.img", size="1G")
    site.sp.fail = "create_volume"
    with pytest.raises(TiergateError):
        site.do("/volumes", "create", name="v", size="1M")
    site.do("/volumes", "list")
    rows = [(row.number, row.command, row.state) for row in site.do("/operations", "list")]
    assert rows == [(1, "/alus attach", "done"), (2, "/volumes create name=v", "refused")]


def test_an_error_of_ours_is_in_the_history_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(site.sp, "alus", broken)
    with pytest.raises(ZeroDivisionError):
        site.do("/volumes", "create", name="v", size="1M")
    (row,) = site.do("/operations", "list")
    assert (row.state, row.message) == ("failed", "ZeroDivisionError")


def test_the_history_forgets_the_oldest(site: Site) -> None:
    for number in range(KEPT_OPERATIONS + 5):
        site.do("/hosts", "create", name=f"h{number}", iqn=f"iqn.2026-01.a:{number}")
    rows = site.do("/operations", "list")
    assert len(rows) == KEPT_OPERATIONS
    assert rows[-1].number == KEPT_OPERATIONS + 5


def test_the_tree_shows_every_name_with_its_state(furnished: Site) -> None:
    """R34: ls."""
    tree = furnished.do("/", "ls")
    names = {node.name: [child.name for child in node.children] for node in tree.children}
    assert names == {
        "alus": ["a0", "a1", "a2", "a3"],
        "pools": ["fast"],
        "volumes": ["db"],
        "hosts": ["any", "web1"],
        "sessions": [],
        "sps": [],
        "fabrics": [],
        "faults": [],
        "gs": [],
        "operations": [],
    }
    db = furnished.do("/volumes/db", "ls")
    assert (db.name, db.summary, db.healthy) == ("db", "on line, 256 MiB, stripe-mirror", True)


def test_the_storage_processor_and_its_sessions_are_told(furnished: Site) -> None:
    furnished.sp.logged_in = [SessionStatus(host="web1", initiator="iqn.x", address="10.0.0.1:999", luns=(0,))]
    (sp,) = furnished.do("/sps", "status")
    assert sp.portals == (sp.portal, "192.0.2.1:3260")
    assert (sp.name, sp.portal, sp.alus, sp.volumes, sp.sessions) == ("sp1", "127.0.0.1:3260", 4, 1, 1)
    (session,) = furnished.do("/sessions", "list")
    assert (session.host, session.initiator, session.luns) == ("web1", "iqn.x", (0,))
    assert furnished.do("/hosts/web1", "info").sessions == 1
