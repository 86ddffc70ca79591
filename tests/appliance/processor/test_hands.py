"""What the hands of several storage processors make together: a volume whose tiers lie on different ones."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.control import orders
from appliance.control.reports import Committed, LegsLost, Opened, Taken
from appliance.control.values import Access, AluAt, Grant
from appliance.messages import GsState
from appliance.processor.names import internal_target, tier_initiator
from backstores.errors import ProtocolError, TiergateError
from backstores.iscsi.access import Credentials
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.session import Session, connect
from backstores.objects import MIB
from tests.support.processors import HOST, IQN, free_port, processors

BLOCK = 512


async def write(host: Session, lba: int, data: bytes) -> None:
    await host.execute(0, transfer(WRITE_16, lba, len(data) // BLOCK), data_out=data)


async def read(host: Session, lba: int, blocks: int) -> bytes:
    return bytes(await host.execute(0, transfer(READ_16, lba, blocks), blocks * BLOCK))


@pytest.mark.parametrize("layout", ["linear", "stripe", "mirror", "stripe-mirror", "concat"])
def test_a_host_writes_to_first_tiers_on_other_storage_processors(tmp_path: Path, layout: str) -> None:
    """R12: the second tier is on sp3, which has no ALU; the first tiers are on sp1 and sp2."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            for number in range(4):
                await many.attach(("sp1", "sp2")[number % 2], tmp_path / f"a{number}")
            await many.make_master("sp1")
            objects = await many.create(layout)
            await many.serve(objects, ["sp3"])
            host = await many.log_in("sp3")
            dice = random.Random(7)
            model = bytearray(4 * MIB)
            for _ in range(60):
                blocks = dice.randint(1, 512)
                lba = dice.randint(0, len(model) // BLOCK - blocks)
                data = dice.randbytes(blocks * BLOCK)
                await write(host, lba, data)
                model[lba * BLOCK : lba * BLOCK + len(data)] = data
            for at in range(0, len(model), MIB):
                assert await read(host, at // BLOCK, MIB // BLOCK) == model[at : at + MIB]
            await host.close()

    asyncio.run(scenario())


def test_a_volume_is_found_again_by_another_mvsp(tmp_path: Path) -> None:
    """R9: what one MVSP has stored through others, the next one collects."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            for number in range(4):
                await many.attach(("sp1", "sp2")[number % 2], tmp_path / f"a{number}")
            await many.make_master("sp1")
            objects = await many.create("stripe-mirror")
            await many.make_master("sp3")
            images = many.hands["sp3"].images()
            assert images is not None
            assert [image.objects for image in images] == [objects]
            assert images[0].reason == ""

    asyncio.run(scenario())


def test_an_mvsp_that_was_replaced_changes_nothing_any_more(tmp_path: Path) -> None:
    """M5: who follows the new one ends its sessions; ALUs of its own would refuse its epoch."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            for number in range(4):
                await many.attach(("sp1", "sp2")[number % 2], tmp_path / f"a{number}")
            await many.make_master("sp3")
            slept = many.hands["sp3"]
            del many.hands["sp3"]  # it is not told of what comes now
            await many.make_master("sp1")
            with pytest.raises(TiergateError):
                await many.create_at(slept, "mirror", epoch=1)
            assert many.hands["sp1"].images() == []
            objects = await many.create("mirror")
            images = many.hands["sp1"].images()
            assert images is not None
            assert [image.objects for image in images] == [objects]
            many.hands["sp3"] = slept

    asyncio.run(scenario())


def test_who_is_not_granted_anything_does_not_get_in(tmp_path: Path) -> None:
    """R15: a T1 object is shown to storage processors that build on it; nobody else can log in at all."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            await many.attach("sp1", tmp_path / "a0")
            await many.make_master("sp1")
            objects = await many.create("linear")
            await many.serve(objects, ["sp2"])
            [internal, _] = many.places["sp1"].internal
            endpoint = Endpoint(internal.address, internal.port)
            for initiator in (HOST.iqn, tier_initiator(IQN, "sp3"), tier_initiator(IQN, "sp2")):
                identity = Identity(initiator, internal_target(IQN, "sp1"), isid=b"\x80\0\0\2\0\0")
                with pytest.raises(ProtocolError):
                    await connect(endpoint, identity)
                with pytest.raises(ProtocolError):
                    await connect(endpoint, replace(identity, chap=Credentials(initiator, b"a guess, long enough")))
            with pytest.raises(ProtocolError):
                await many.log_in("sp2", "iqn.2026-01.org.host:stranger")

    asyncio.run(scenario())


def test_a_leg_that_fails_is_given_up_by_the_mvsp_while_the_host_waits(tmp_path: Path) -> None:
    """D3: the write is acknowledged after the tree without the leg is durable, and the volume has been resumed."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3") as many:
            for number in range(3):
                await many.attach(f"sp{number + 1}", tmp_path / f"a{number}")
            await many.make_master("sp3")
            objects = await many.create("mirror")
            await many.serve(objects, ["sp3"])
            host = await many.log_in("sp3")
            await write(host, 0, b"1" * BLOCK)
            await many.hands["sp2"].close()  # with the second leg
            writing = asyncio.create_task(write(host, 0, b"2" * BLOCK))
            while not many.reports:
                await asyncio.wait([writing], timeout=0.05)
            [(sp, lost)] = many.reports
            assert isinstance(lost, LegsLost)
            assert (sp, lost.volume) == ("sp3", objects[0].wwn)
            assert not writing.done()
            tree = await many.fail_legs(objects, lost.legs)
            await many.order("sp3", orders.HoldVolume(volume=lost.volume, generation=2, most_s=10.0))
            made = many.made(tree, "sp3", ["sp3"], generation=2)
            await many.order("sp3", orders.ResumeVolume(volume=lost.volume, generation=2, made=made))
            await writing
            assert await read(host, 0, 1) == b"2" * BLOCK
            await host.close()

    asyncio.run(scenario())


def test_two_storage_processors_that_write_the_same_blocks_leave_the_legs_equal(tmp_path: Path) -> None:
    """D4: hosts write overlapping ranges at sp1, which leads, and at sp2, which follows; the legs lie elsewhere."""

    async def scenario() -> None:
        async with processors("sp1", "sp2", "sp3", "sp4") as many:
            for number in range(4):
                await many.attach(("sp3", "sp4")[number % 2], tmp_path / f"a{number}")
            await many.make_master("sp3")
            objects = await many.create("stripe-mirror", chunk_bytes=4096)
            await many.serve(objects, ["sp1", "sp2"])
            hosts = [await many.log_in(sp) for sp in ("sp1", "sp2")]
            dice = random.Random(11)

            async def keep_writing(host: Session, mark: int) -> None:
                for turn in range(60):
                    blocks = dice.randint(1, 48)
                    lba = dice.randint(0, 64 - blocks)
                    await write(host, lba, bytes([mark + turn]) * (blocks * BLOCK))

            await asyncio.gather(keep_writing(hosts[0], 0), keep_writing(hosts[1], 100))
            seen = [await read(host, 0, 64) for host in hosts]
            assert seen[0] == seen[1]
            for host in hosts:
                await host.close()
            for sp in ("sp2", "sp1"):
                await many.order(sp, orders.GoOffLine(volume=objects[0].wwn, generation=1, reason="that is all"))
            legs = many.legs(objects)
            assert len(legs) == 2
            for leg in legs:
                assert len(set(leg)) == 1, "the legs differ"

    asyncio.run(scenario())


def test_a_deletion_that_nobody_heard_of_may_be_repeated_by_another_mvsp(tmp_path: Path) -> None:
    """C2, R9: the first one died before it could say so; the second does not find the volume."""

    async def scenario() -> None:
        async with processors("sp1", "sp2") as many:
            for number in range(2):
                await many.attach(("sp1", "sp2")[number], tmp_path / f"a{number}")
            await many.make_master("sp1")
            objects = await many.create("mirror")
            for master in ("sp1", "sp2"):
                if master != many.master:
                    await many.make_master(master)
                delete = orders.Commit(
                    epoch=many.epoch, change=orders.Change.DELETE, volume=objects[0].wwn, objects=objects
                )
                assert isinstance(await many.order(master, delete), Committed)
                assert many.hands[master].images() == []

    asyncio.run(scenario())


def test_the_gs_set_is_taken_up_when_the_alus_come_that_make_a_majority(tmp_path: Path) -> None:
    """M4: until then the configuration is read only; the answer says that it is no longer."""

    async def scenario() -> None:
        async with processors("sp1") as many:
            for number in range(3):
                await many.attach("sp1", tmp_path / f"a{number}")
            await many.make_master("sp1")
            ats = [AluAt(path, status.wwn) for path, status in many.alus.items()]
            await many.order("sp1", orders.Follow(epoch=9, grant=Grant("sp1", "secret")))
            await many.order("sp1", orders.BeMaster(epoch=9))
            await many.order("sp1", orders.Admit(epoch=9, alus=tuple(ats[:1])))
            first = await many.order("sp1", orders.TakeUp(epoch=9))
            late = await many.order("sp1", orders.Admit(epoch=9, alus=tuple(ats[1:])))
            assert isinstance(first, Taken)
            assert isinstance(late, Taken)
            assert [first.gs.state, late.gs.state] == [GsState.READ_ONLY, GsState.READY]
            assert late.epoch >= 9

    asyncio.run(scenario())


def test_an_alu_that_the_mvsp_can_not_reach_is_named_and_holds_up_no_other(tmp_path: Path) -> None:
    """C3: the VCM hears of it, and has it tried again."""

    async def scenario() -> None:
        async with processors("sp1", "sp2") as many:
            await many.attach("sp1", tmp_path / "a0")
            await many.make_master("sp1")
            portal = f"127.1.1.9:{free_port('127.1.1.9')}"
            lost = AluAt("/nowhere", None, Access("sp9", (portal,), "a secret that is long enough"))
            await many.attach("sp2", tmp_path / "a1")
            reached = AluAt(str(tmp_path / "a1"), None, many.access("sp2", "sp1"))
            answer = await many.order("sp1", orders.Admit(epoch=1, alus=(lost, reached)))
            assert isinstance(answer, Opened)
            assert [found.path for found in answer.refused] == ["/nowhere"]
            claimed = await many.order("sp1", orders.Claim(epoch=1, path=reached.path))
            assert isinstance(claimed, Committed)

    asyncio.run(scenario())
