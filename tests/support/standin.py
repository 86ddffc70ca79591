"""Processes that stand in for those of a system: each tells on standard output what happens to it.

    python -m tests.support.standin SPS [--fail NAME]

Standard input goes to the MIC, which hands on "hold sp1", "freeze sp1", "release sp1" and "end sp1" to the supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from functools import partial

from appliance.processes.roster import Post
from appliance.processes.supervisor import Role, Supervisor
from appliance.processes.words import Child, End, Ended, Freeze, Hold, Ready, Release
from backstores.errors import UsageError

WORDS = {"hold": Hold, "freeze": Freeze, "release": Release, "end": lambda name: End(name, 0)}


def tell(*words: object) -> None:
    """Write one line, whole: all processes share the stream."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


def work(child: Child) -> None:
    """Be there until told to end."""
    asyncio.run(_work(child))


async def _work(child: Child) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGUSR1, tell, "awake", child.name)
    if child.name == "mic":
        loop.add_reader(sys.stdin.fileno(), partial(_obey, child))
    watching = asyncio.create_task(_watch(child)) if child.name == "vcm" else None
    tell("ready", child.name, os.getpid())
    child.say(Ready(f"{child.name} at work"))
    await ended.wait()
    tell("ended", child.name)
    if watching is not None:
        watching.cancel()


def _obey(child: Child) -> None:
    for line in os.read(sys.stdin.fileno(), 4096).decode().splitlines():
        word, name = line.split()
        child.say(WORDS[word](name))


async def _watch(child: Child) -> None:
    async for word in child.words():
        if isinstance(word, Ended):
            tell("vcm-heard-ended", word.name, word.status)
        else:
            tell("vcm-heard-started", word.name)


def refuse(child: Child) -> None:
    """Not start at all."""
    raise UsageError(f"{child.name} can't be used")


def main() -> int:
    """Run a system of stand-ins."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sps", type=int)
    parser.add_argument("--fail", default="")
    options = parser.parse_args()
    posts = [
        Post("vcm", stage=1),
        Post("mic", stage=0, vital=True),
        *(Post(f"sp{number}", stage=2) for number in range(1, options.sps + 1)),
    ]
    roles = [Role(post, refuse if post.name == options.fail else work, post.name == "vcm") for post in posts]
    return Supervisor(roles, lambda name, text: tell("supervisor-heard", name, text)).run()


if __name__ == "__main__":
    sys.exit(main())
