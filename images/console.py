"""What the appliance's console shows (R34, R35): where it is, what to do next, the shell, and the way out of it.

The image's getty units run this on every terminal, as root and without a login: whoever has the console has the
machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance import __version__
from appliance.mic.protocol import default_state
from appliance.mic.values import human_size
from appliance.mic.views import untold
from backstores.errors import TiergateError
from cli.client import Client

KEYS: Final = Path("/root/.ssh/authorized_keys")
CLAIMABLE: Final = "blank"
OWNED: Final = "owned"
SILENT: Final = """\
The appliance does not answer. `root` opens a root shell; there, `systemctl status tiergate` and
`journalctl -u tiergate` tell why, and `systemctl restart tiergate` starts it again.
"""
NO_DISK: Final = """\
No disk is free. Give this machine one, and type

    /alus scan
"""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Word:
    """What can be typed when the shell has been left."""

    name: str
    help: str
    do: Callable[[], None]


def next_steps(alus: Rows, volumes: Rows) -> str:
    """Say what to type to get from a fresh machine to a volume that a host sees; nothing once that was done."""
    free = [alu for alu in alus if alu["state"] == CLAIMABLE and not alu["detail"]]
    owned = [alu for alu in alus if alu["state"] == OWNED]
    if any(volume["hosts"] for volume in volumes):
        return ""
    if not (free or owned or volumes):
        return NO_DISK
    lines = []
    if not owned:
        lines.append(f"/alus claim alus={','.join(alu['name'] for alu in free)}")
    if not volumes:
        lines.append(_create(owned or free))
    lines.append(f"/volumes/{volumes[0]['name'] if volumes else 'v1'} expose host=any iqn=*")
    found = ", ".join(f"{alu['name']} ({alu['size']})" for alu in free)
    return "".join(
        [
            f"Disks that nobody uses: {found}.\n" if found else "",
            "What to type next:\n\n",
            *(f"    {line}\n" for line in lines),
            "\niqn=* lets every host in; one host's own name instead of * lets in this one alone.\n",
        ]
    )


def _create(alus: Rows) -> str:
    """Suggest a first volume: a mirror if there are two disks, of about half their size."""
    smallest = min(alu["size_bytes"] for alu in alus)
    size = human_size(1 << max(smallest // 2, 1).bit_length() - 1).replace(" ", "").removesuffix("iB")
    return f"/volumes create name=v1 size={size} layout={'mirror' if len(alus) > 1 else 'linear'}"


def greeting(client: Client) -> str:
    """Say which machine this is and what to do."""
    title = f"\nTiergate {__version__} on {os.uname().nodename}\n"
    try:
        [sp] = client.call("/sps", "status", {}, untold)
        steps = next_steps(client.call("/alus", "list", {}, untold), client.call("/volumes", "list", {}, untold))
    except TiergateError:
        return f"{title}\n{SILENT}"
    ssh = "on, for those who have given a key" if KEYS.exists() else "off, until `exit` and `ssh-key`"
    where = f"Hosts log in at {sp['portal']}, target {sp['target']}.\nSSH is {ssh}.\n"
    return "\n".join([title + where, *([steps] if steps else [])])


def add_key(keys: Path = KEYS, read: Callable[[str], str] = input) -> None:
    """Take a public key; SSH starts when the first one is there."""
    key = read("public key, in one line: ").strip()
    looked = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=key, capture_output=True, text=True, check=False)
    if looked.returncode:
        print("that is no public key; nothing was changed")
        return
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(keys, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
        file.write(f"{key}\n")
    print(f"{looked.stdout.strip()}: may log in by SSH, as root")


def command(*words: str) -> Callable[[], None]:
    """Run a program until it ends; what it says of itself is its own affair."""

    def run() -> None:
        subprocess.run(words, check=False)

    return run


WORDS: Final = (
    Word("", "the appliance's shell", command("tiergate")),
    Word("root", "a root shell of this machine", command("bash", "--login")),
    Word("ssh-key", "let somebody in by SSH", add_key),
    Word("reboot", "start this machine anew", command("systemctl", "reboot")),
    Word("poweroff", "switch this machine off", command("systemctl", "poweroff")),
)


def menu() -> str:
    """Say what can be typed."""
    return "".join(f"    {word.name or 'Enter':<10} {word.help}\n" for word in WORDS)


def main() -> int:
    """Show the shell, and when it is left the menu; systemd starts it again when the terminal goes."""
    client = Client(default_state(os.environ, os.geteuid()))
    by_name = {word.name: word for word in WORDS}
    typed = ""
    while True:
        if typed == "":
            print(greeting(client), flush=True)
        by_name[typed].do()
        print(f"\n{menu()}")
        try:
            while (typed := input("console> ").strip()) not in by_name:
                print(f"there is no {typed!r}; there is\n{menu()}")
        except KeyboardInterrupt:
            typed = ""
        except EOFError:
            return 0


if __name__ == "__main__":
    sys.exit(main())
