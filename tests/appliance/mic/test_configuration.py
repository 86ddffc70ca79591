"""Export and apply (C4): the configuration as one document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstores.errors import TiergateError, UsageError
from tests.appliance.mic.conftest import Site
from tests.appliance.mic.test_hosts import MUTUAL, SECRET, secret_file


def exported(site: Site, secrets: str = "no") -> str:
    """Give what ``tiergate export`` prints."""
    return msgspec.yaml.encode(site.do("/", "export", secrets=secrets)).decode()


def edited(site: Site, **changes: Any) -> str:
    """Give an export with some of its lists replaced."""
    document = msgspec.yaml.decode(exported(site))
    return msgspec.yaml.encode({**document, **changes}).decode()


def test_applying_an_export_to_its_own_system_changes_nothing_and_says_so(furnished: Site) -> None:
    """C4: "nothing to change" is an outcome of its own."""
    before = furnished.snapshot()
    outcome = furnished.do("/", "apply", file=exported(furnished), prune="yes")
    assert (outcome.message, outcome.changed, outcome.notes) == ("nothing to change", False, ())
    assert furnished.snapshot() == before


def test_an_export_makes_an_empty_appliance_equal(furnished: Site) -> None:
    text = exported(furnished, secrets="yes")
    fresh = Site()
    outcome = fresh.do("/", "apply", file=text)
    assert outcome.message == "9 changes made"
    assert exported(fresh, secrets="yes") == text
    assert len(fresh.progress) > 5


def test_an_export_reads_as_it_was_typed(furnished: Site) -> None:
    document = msgspec.yaml.decode(exported(furnished))
    assert document["volumes"] == [
        {"name": "db", "size": "256M", "layout": "stripe-mirror", "alus": ["a0", "a1", "a2", "a3"],
         "chunk": "64K", "legs": 2, "width": 2, "block": 512},
    ]  # fmt: skip
    assert document["exposures"] == [{"host": "web1", "volume": "db", "lun": 0}]
    assert document["alus"][0] == {"name": "a0", "path": "/x/a0.img", "size": "1G"}


def test_only_what_differs_is_changed_and_the_plan_is_told(furnished: Site) -> None:
    furnished.do("/volumes", "create", name="keep", size="1M")
    text = edited(
        furnished,
        pools=[{"name": "fast", "alus": ["a0", "a1"]}],
        volumes=[{"name": "db", "size": "512M", "layout": "stripe-mirror"}],
        hosts=[{"name": "any", "iqn": "iqn.2026-01.org.example:*"}, {"name": "new", "iqn": "*"}],
        exposures=[{"host": "web1", "volume": "db", "lun": 5}, {"host": "new", "volume": "keep"}],
    )
    expected = (
        "unexpose volume db from host web1",
        "make pool fast of a0, a1 instead of a0, a1, a2, a3",
        "grow volume db from 256M to 512M",
        "change host any",
        "create host new as *",
        "expose volume db to host web1 as lun 5",
        "expose volume keep to host new",
    )
    before = furnished.snapshot()
    planned = furnished.do("/", "apply", file=text, dry_run="yes")
    assert (planned.message, planned.notes) == ("7 changes would be made", expected)
    assert furnished.snapshot() == before
    outcome = furnished.do("/", "apply", file=text)
    assert outcome.notes[:7] == expected
    assert [v.name for v in furnished.do("/volumes", "list")] == ["db", "keep"]
    assert furnished.do("/volumes/db", "info").exposures[0].lun == 5
    assert not furnished.do("/", "apply", file=text).changed


def test_prune_takes_away_what_the_document_does_not_name(furnished: Site) -> None:
    furnished.do("/", "apply", file="tiergate: 1", prune="yes")
    empty = furnished.do("/", "export")
    assert empty == type(empty)(tiergate=1)
    assert furnished.sp.volumes() == []
    assert furnished.sp.alus() == []


def test_two_hosts_can_swap_names_and_luns(furnished: Site) -> None:
    furnished.do("/volumes", "create", name="v", size="1M")
    furnished.do("/volumes/v", "expose", host="web1", lun=1)
    text = edited(
        furnished,
        hosts=[{"name": "any", "iqn": "iqn.2026-01.org.example:web1"}, {"name": "web1", "iqn": "*"}],
        exposures=[{"host": "web1", "volume": "db", "lun": 1}, {"host": "web1", "volume": "v", "lun": 0}],
    )
    furnished.do("/", "apply", file=text)
    assert exported(furnished) == exported(furnished)
    assert [e.lun for e in furnished.do("/volumes/db", "info").exposures] == [1]
    assert furnished.do("/hosts/web1", "info").iqn == "* (open)"


def test_secrets_come_along_only_if_asked_and_stay_if_left_out(furnished: Site, tmp_path: Path) -> None:
    """S2."""
    furnished.do(
        "/hosts/web1", "set-chap", chap_user="alice", chap_secret_file=secret_file(tmp_path, "s", SECRET.encode()),
        mutual_user="box", mutual_secret_file=secret_file(tmp_path, "m", MUTUAL.encode()),
    )  # fmt: skip
    plain, whole = exported(furnished), exported(furnished, secrets="yes")
    assert SECRET not in plain
    assert MUTUAL not in plain
    assert SECRET in whole
    assert MUTUAL in whole
    assert not furnished.do("/", "apply", file=plain).changed
    assert not furnished.do("/", "apply", file=whole).changed
    fresh = Site()
    with pytest.raises(UsageError, match="host web1: chap-user and chap-secret-file go together"):
        fresh.do("/", "apply", file=plain)
    assert fresh.do("/alus", "list") == ()
    fresh.do("/", "apply", file=whole)
    assert fresh.sp.hosts == furnished.sp.hosts


BAD_DOCUMENTS = [
    ("", "the file is no configuration"),
    ("[", "the file is no configuration"),
    ("just text", "the file is no configuration"),
    ("tiergate: 2", "the file has format 2"),
    ("alus: []", "missing required field `tiergate`"),
    ("tiergate: 1\nvolume: []", "unknown field `volume`"),
    ("tiergate: 1\nvolumes: [{name: x, sizee: 1G}]", "unknown field `sizee`"),
    ("tiergate: 1\nvolumes: [{name: x, size: [], layout: linear}]", "Expected `int | str`, got `array`"),
    ("tiergate: 1\nvolumes: [{name: x, size: 10X, layout: linear}]", "volume x: size: '10X' is no size"),
    ("tiergate: 1\nvolumes: [{name: x, size: 1G, layout: raid9}]", "volume x: layout: 'raid9'"),
    ("tiergate: 1\nvolumes: [{name: x, size: 1G, layout: linear, block: 520}]", "volume x: block: '520'"),
    ("tiergate: 1\nvolumes: [{name: a/b, size: 1G, layout: linear}]", "volume: name: 'a/b'"),
    ("tiergate: 1\nalus: [{name: a9, path: relative}]", "alu a9: path: 'relative'"),
    ("tiergate: 1\nalus: [{name: z, path: /z}, {name: z, path: /y}]", "alu z stands more than once"),
    ("tiergate: 1\nhosts: [{name: h, iqn: web}]", "host h: iqn: 'web'"),
    ("tiergate: 1\nhosts: [{name: h, iqn: '*'}]", "iqn * is host any's and host h's"),
    ("tiergate: 1\nhosts: [{name: h, iqn: 'iqn.2026-01.a:b', chap-user: u}]", "host h: chap-user"),
    ("tiergate: 1\nhosts: [{name: h, iqn: 'iqn.2026-01.a:b', chap-user: u, chap-secret: short}]", "has 5 bytes"),
    ("tiergate: 1\npools: [{name: p, alus: [a9]}]", "pool p names alu 'a9', which is neither in the file nor there"),
    ("tiergate: 1\nvolumes: [{name: x, size: 1G, layout: linear, pool: p9}]", "volume x names pool 'p9'"),
    ("tiergate: 1\nvolumes: [{name: x, size: 1G, layout: linear, pool: fast, alus: [a0]}]", "both given"),
    ("tiergate: 1\nexposures: [{host: web1, volume: v9}]", "names volume 'v9'"),
    ("tiergate: 1\nexposures: [{host: h9, volume: db}]", "names host 'h9'"),
    ("tiergate: 1\nexposures: [{host: web1, volume: db, lun: 300}]", "exposure of db: lun: '300'"),
    (
        "tiergate: 1\nvolumes: [{name: v, size: 1M, layout: linear}]\nexposures: [{host: web1, volume: v, lun: 0}]",
        "lun 0 of host web1 is volume db's and volume v's",
    ),
    ("tiergate: 1\nalus: [{name: a0, path: /other}]", "alu a0 has path /x/a0.img, the file says /other"),
    ("tiergate: 1\nalus: [{name: a0, path: /x/a0.img, size: 2G}]", "alu a0 has size 1073741824"),
    ("tiergate: 1\nvolumes: [{name: db, size: 1M, layout: stripe-mirror}]", "volume db has 256M, the file says 1M"),
    (
        "tiergate: 1\nvolumes: [{name: db, size: 256M, layout: mirror}]",
        "has layout stripe-mirror, the file says mirror",
    ),
    ("tiergate: 1\nvolumes: [{name: db, size: 256M, layout: stripe-mirror, chunk: 4K}]", "has chunk 65536"),
]


@pytest.mark.parametrize(("text", "named"), BAD_DOCUMENTS, ids=[named for _, named in BAD_DOCUMENTS])
def test_a_document_with_an_error_changes_nothing_at_all(furnished: Site, text: str, named: str) -> None:
    """C4: everything is validated first; the error names entry, value and what is allowed."""
    good_first = "\nalus: [{name: fresh, path: /x/fresh.img, size: 1G}]"
    before = furnished.snapshot()
    with pytest.raises(UsageError) as refused:
        furnished.do("/", "apply", file=text if "alus:" in text or not text.startswith("tier") else text + good_first)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert furnished.snapshot() == before


def test_a_step_that_fails_tells_which_and_how_many_were_made(furnished: Site) -> None:
    text = edited(
        furnished,
        alus=[{"name": "b", "path": "/x/b.img", "size": "1G"}],
        volumes=[{"name": "v", "size": "1M", "layout": "linear"}],
    )
    furnished.sp.fail = "create_volume"
    with pytest.raises(TiergateError, match=r"create volume v, 1M, linear: .* on purpose \(1 of 2 changes made\)"):
        furnished.do("/", "apply", file=text)


names = st.text("abcdefgh0123456789.-_", min_size=1, max_size=6).map(lambda text: f"n{text}")


@st.composite
def sites(draw: st.DrawFn) -> Site:
    """Draw an appliance with whatever can be on one."""
    site = Site()
    alus = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    for alu in alus:
        site.do(
            "/alus", "attach", path=f"/x/{alu}", name=alu, size=draw(st.sampled_from(["1G", "1536M", "1073745920"]))
        )
    for pool in draw(st.lists(names, max_size=2, unique=True)):
        members = draw(st.lists(st.sampled_from(alus), min_size=1, unique=True))
        site.do("/pools", "create", name=pool, alus=",".join(members))
    volumes = draw(st.lists(names, max_size=3, unique=True))
    for volume in volumes:
        layout = draw(st.sampled_from(["linear", "concat", "stripe", "mirror"]))
        size = draw(st.integers(1, 64)) * 131072
        site.do(
            "/volumes", "create", name=volume, size=size, layout=layout, chunk=draw(st.sampled_from(["4K", "64K"])),
            block=draw(st.sampled_from(["512", "4096"])), alus=",".join(alus[:2]),
        )  # fmt: skip
    hosts = draw(st.lists(names, max_size=3, unique=True))
    for number, host in enumerate(hosts):
        site.do("/hosts", "create", name=host, iqn=f"iqn.2026-01.org.example:{number}*")
        for volume in draw(st.lists(st.sampled_from(volumes), unique=True)) if volumes else []:
            site.do(f"/volumes/{volume}", "expose", host=host)
    return site


@settings(deadline=None, max_examples=40)
@given(sites())
def test_export_and_apply_go_round_whatever_there_is(site: Site) -> None:
    """C4: export prints the whole configuration, apply makes it so."""
    text = exported(site, secrets="yes")
    assert not site.do("/", "apply", file=text, prune="yes").changed
    fresh = Site()
    fresh.do("/", "apply", file=text)
    assert exported(fresh, secrets="yes") == text


@settings(deadline=None)
@given(st.text() | st.text().map(lambda text: "tiergate: 1\n" + text))
def test_no_text_whatever_breaks_apply(text: str) -> None:
    site = Site()
    try:
        outcome = site.do("/", "apply", file=text)
    except UsageError:
        assert site.snapshot() == Site().snapshot()
    else:
        assert not outcome.changed
