"""The demonstration volume of ``make run``: a stripe over mirrors on four files, and how to log in."""

from __future__ import annotations

from pathlib import Path

from appliance.mic.management import Management
from appliance.mic.views import untold

NAME = "demo"
ALUS = ("a0", "a1", "a2", "a3")
ALU_BYTES = 1 << 30
VOLUME_BYTES = 1 << 30


async def make_demo(management: Management, state: Path) -> None:
    """Make what is missing of it, and print how to reach it."""
    known = {alu.name for alu in await management.alus.rows()}
    for name in ALUS:
        if name not in known:
            await management.alus.attach(str(state / f"{name}.img"), ALU_BYTES, name)
    if NAME not in {pool.name for pool in await management.pools.rows()}:
        await management.pools.create(NAME, ALUS)
    if NAME not in {volume.name for volume in await management.volumes.rows()}:
        await management.volumes.create(
            NAME, VOLUME_BYTES, "stripe-mirror", None, ALUS, 64 << 10, 2, 2, 512, None, untold
        )
    if NAME not in {host.name for host in await management.hosts.rows()}:
        await management.hosts.create(NAME, "*", None, None, None, None)
    await management.volumes.expose(NAME, NAME, 0, None)
    info = await management.volumes.info(NAME)
    [url] = info.iscsi_urls
    portal, iqn = url.removeprefix("iscsi://").split("/")[:2]
    print(
        f"""
The volume "{NAME}" is a stripe over two mirrors on four files in {state}. To use it, type one of:

    iscsi-ls --show-luns iscsi://{portal}                       what libiscsi sees
    qemu-img info {url}
    qemu-img convert -n -O raw disk.img {url}
    iscsiadm -m discovery -t sendtargets -p {portal}            open-iscsi, as root
    iscsiadm -m node -T {iqn} -p {portal} --login

and to manage it:    .venv/bin/tiergate --state {state}

Ctrl-C stops the appliance; everything is there again when it starts.
""",
        flush=True,
    )
