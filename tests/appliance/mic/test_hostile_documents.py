"""Documents that would cost the appliance more than their length (S3): ``apply`` refuses them in time.

They are read in a process of their own, for what goes wrong here may end it.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

READER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from appliance.mic.commands import CommandError
from appliance.mic.document import read_document
try:
    read_document(sys.stdin.read())
except CommandError as error:
    print(error)
else:
    print("read")
"""

FAMILIES = "abcdefghijk"


def laughs(item: str, first: str) -> str:
    """Make a text whose every line repeats the one before it nine times."""
    lines = [f"a: &a {first}"]
    for before, name in itertools.pairwise(FAMILIES):
        lines.append(f"{name}: &{name} {item.format(', '.join([f'*{before}'] * 9))}")
    return "tiergate: 1\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param(laughs("[{}]", "[x]"), "line 3 of the file has an alias (*): write it out", id="lists of aliases"),
        pytest.param(laughs("{{<<: [{}]}}", "{x: 1}"), "line 3 of the file has an alias", id="merged aliases"),
        pytest.param("a: &a [*a]\n", "line 1 of the file has an alias", id="an alias to itself"),
        pytest.param("[" * 500_000, "line 1 of the file is nested deeper than 8 levels", id="deep lists"),
        pytest.param("{a: " * 200_000, "line 1 of the file is nested deeper than 8 levels", id="deep maps"),
        pytest.param("!!python/object/apply:os.getcwd []", "line 1 of the file has a tag", id="a Python object"),
        pytest.param("!!bool perhaps", "line 1 of the file has a tag", id="a tag that does not fit"),
        pytest.param("tiergate: 0b_", "the file is no configuration", id="a number without digits"),
        pytest.param("tiergate: 2026-99-99", "the file is no configuration", id="a date that is none"),
        pytest.param("tiergate: " + "9" * 900_000, "the file is no configuration", id="a huge number"),
        pytest.param("\0", "the file is no configuration", id="a zero byte"),
        pytest.param(
            "tiergate: 1\npools:\n" + "".join(f"- {{name: p{n}, alus: [a]}}\n" for n in range(40_000)),
            "read",
            id="many names",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"tiergate: 1\npools:\n- {{name: p, alus: [{','.join(f'a{n}' for n in range(120_000))}]}}\n",
            "read",
            id="a long list",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_document_costs_no_more_than_its_length(text: str, answer: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READER], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(answer)


@pytest.mark.parametrize(
    "value",
    [
        "[the hidden word]",
        "'the hidden word",
        "!the-hidden-word x",
        "%the hidden word",
        "*the-hidden-word",
        "{the: hidden word}",
    ],
)
def test_an_error_repeats_no_secret(value: str) -> None:
    """S2: what stands in the place of a secret is never shown, whatever is wrong with it."""
    text = f"tiergate: 1\nhosts:\n- name: h\n  iqn: iqn.2026-11.example:h\n  chap-secret: {value}\n"
    done = subprocess.run(
        [sys.executable, "-c", READER], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip()
    assert done.stdout != "read\n"
    assert "hidden" not in done.stdout
