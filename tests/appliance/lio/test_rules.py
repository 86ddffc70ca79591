"""What LIO can't express is told in a line, before anything is touched."""

from __future__ import annotations

import pytest

from appliance.lio.rules import refusals
from appliance.messages import Exposure, HostDefinition
from backstores.wwn import Wwn

A, B = Wwn("6" + "a" * 31), Wwn("6" + "b" * 31)


def host(name: str, iqn: str, **chap: str) -> HostDefinition:
    return HostDefinition(name=name, iqn=iqn, **chap)


def row(name: str, volume: Wwn, lun: int) -> Exposure:
    return Exposure(host=name, volume=volume, lun=lun)


WEB = host("web", "iqn.2026-01.example:web")
ANYONE = host("any", "*")


@pytest.mark.parametrize(
    ("hosts", "exposures", "refused"),
    [
        pytest.param([WEB], [row("web", A, 0)], {}, id="a name"),
        pytest.param([host("lab", "iqn.2026-01.example:*")], [], {"lab": "no patterns such as"}, id="a pattern"),
        pytest.param([host("lab", "iqn.2026-01.example:a?")], [], {"lab": "no patterns such as"}, id="one character"),
        pytest.param([ANYONE], [row("any", A, 4)], {}, id="open alone"),
        pytest.param([ANYONE, WEB], [row("any", A, 4), row("web", A, 0)], {}, id="open sees what the other sees"),
        pytest.param([ANYONE, WEB], [row("web", B, 0)], {}, id="open sees nothing, and lets nobody in"),
        pytest.param(
            [ANYONE, WEB],
            [row("any", A, 0), row("web", B, 0)],
            {"any": "would see what only host web is to see"},
            id="open would see more",
        ),
        pytest.param([ANYONE], [row("any", A, 0), row("any", A, 1)], {"any": "two LUNs"}, id="open sees it twice"),
        pytest.param(
            [host("web", "iqn.2026-01.example:web", chap_user="NULLA", chap_secret="x" * 12)],
            [],
            {"web": "chap-user NULLA begins with NULL"},
            id="user NULL",
        ),
        pytest.param(
            [host("web", "iqn.2026-01.example:web", chap_user="web", chap_secret="NULLgeheimnis")],
            [],
            {"web": "a secret of it begins with NULL"},
            id="secret NULL",
        ),
    ],
)
def test_refusals(hosts: list[HostDefinition], exposures: list[Exposure], refused: dict[str, str]) -> None:
    """R15 and R33: nobody sees another host's volume, and no secret is in the line."""
    found = refusals(hosts, exposures)
    assert found.keys() == refused.keys()
    for name, part in refused.items():
        assert part in found[name]
        assert "geheimnis" not in found[name]
