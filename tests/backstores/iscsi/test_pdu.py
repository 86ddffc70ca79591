"""The formats of RFC 7143, clause 11, against bytes written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from backstores.iscsi import fast, pdu
from backstores.wire import Bits, Wire, WireError, packer

LUN_1 = "0001000000000000"
NO_LUN = "00" * 8

# (format, fields, bytes 0-15, 16-31, 32-47)
GOLDEN: list[tuple[type[Wire], dict[str, Any], str]] = [
    (
        pdu.NopOut,
        {"immediate": 1, "final": 1, "data_bytes": 4, "itt": 7, "ttt": pdu.NO_TAG, "cmd_sn": 5, "exp_stat_sn": 6},
        "40800000 00000004" + NO_LUN + "00000007 ffffffff 00000005 00000006" + "00" * 16,
    ),
    (
        pdu.ScsiCommand,
        {
            "final": 1,
            "read": 1,
            "attribute": 1,
            "lun": 0x0001 << 48,
            "itt": 0x10,
            "expected_bytes": 4096,
            "cmd_sn": 0xFFFFFFFF,
            "exp_stat_sn": 2,
            "cdb": bytes.fromhex("2800000000070000080000000000000a"),
        },
        "01c10000 00000000" + LUN_1 + "00000010 00001000 ffffffff 00000002" + "2800000000070000080000000000000a",
    ),
    (
        pdu.ScsiCommand,
        {
            "immediate": 1,
            "write": 1,
            "attribute": 2,
            "ahs_words": 3,
            "data_bytes": 512,
            "itt": 1,
            "expected_bytes": 512,
        },
        "41220000 03000200" + NO_LUN + "00000001 00000200 00000000 00000000" + "00" * 16,
    ),
    (
        pdu.ScsiResponse,
        {
            "underflow": 1,
            "status": 2,
            "data_bytes": 20,
            "itt": 3,
            "stat_sn": 4,
            "exp_cmd_sn": 5,
            "max_cmd_sn": 132,
            "exp_data_sn": 1,
            "residual_bytes": 512,
        },
        "21820002 00000014" + NO_LUN + "00000003 00000000 00000004 00000005" + "00000084 00000001 00000000 00000200",
    ),
    (
        pdu.TaskManagementRequest,
        {
            "immediate": 1,
            "final": 1,
            "function": 1,
            "lun": 1 << 48,
            "itt": 9,
            "referenced_itt": 8,
            "cmd_sn": 3,
            "exp_stat_sn": 4,
            "ref_cmd_sn": 2,
        },
        "42810000 00000000" + LUN_1 + "00000009 00000008 00000003 00000004" + "00000002 00000000 00000000 00000000",
    ),
    (
        pdu.TaskManagementResponse,
        {"response": 5, "itt": 9, "stat_sn": 1, "exp_cmd_sn": 2, "max_cmd_sn": 3},
        "22800500 00000000" + NO_LUN + "00000009 00000000 00000001 00000002" + "00000003 00000000 00000000 00000000",
    ),
    (
        pdu.DataOut,
        {"final": 1, "data_bytes": 1024, "lun": 1 << 48, "itt": 6, "ttt": 7, "data_sn": 2, "offset_bytes": 8192},
        "05800000 00000400" + LUN_1 + "00000006 00000007 00000000 00000000" + "00000000 00000002 00002000 00000000",
    ),
    (
        pdu.DataIn,
        {
            "final": 1,
            "status_here": 1,
            "overflow": 1,
            "data_bytes": 3,
            "itt": 6,
            "stat_sn": 9,
            "exp_cmd_sn": 10,
            "max_cmd_sn": 11,
            "data_sn": 1,
            "offset_bytes": 512,
            "residual_bytes": 1,
        },
        "25850000 00000003" + NO_LUN + "00000006 ffffffff 00000009 0000000a" + "0000000b 00000001 00000200 00000001",
    ),
    (
        pdu.R2t,
        {
            "lun": 1 << 48,
            "itt": 1,
            "ttt": 2,
            "stat_sn": 3,
            "exp_cmd_sn": 4,
            "max_cmd_sn": 5,
            "r2t_sn": 6,
            "offset_bytes": 7,
            "desired_bytes": 8,
        },
        "31800000 00000000" + LUN_1 + "00000001 00000002 00000003 00000004" + "00000005 00000006 00000007 00000008",
    ),
    (
        pdu.AsyncMessage,
        {"event": 3, "stat_sn": 1, "exp_cmd_sn": 2, "max_cmd_sn": 3, "parameter2": 4, "parameter3": 5},
        "32800000 00000000" + NO_LUN + "ffffffff 00000000 00000001 00000002" + "00000003 03000000 00040005 00000000",
    ),
    (
        pdu.TextRequest,
        {"final": 1, "data_bytes": 16, "itt": 1, "ttt": pdu.NO_TAG, "cmd_sn": 2, "exp_stat_sn": 3},
        "04800000 00000010" + NO_LUN + "00000001 ffffffff 00000002 00000003" + "00" * 16,
    ),
    (
        pdu.TextResponse,
        {"more": 1, "data_bytes": 512, "itt": 1, "ttt": 2, "stat_sn": 3, "exp_cmd_sn": 4, "max_cmd_sn": 5},
        "24400000 00000200" + NO_LUN + "00000001 00000002 00000003 00000004" + "00000005" + "00" * 12,
    ),
    (
        pdu.LoginRequest,
        {
            "immediate": 1,
            "transit": 1,
            "current_stage": 1,
            "next_stage": 3,
            "data_bytes": 100,
            "isid": bytes.fromhex("023d01020304"),
            "tsih": 0x5566,
            "itt": 1,
            "cid": 7,
            "cmd_sn": 8,
            "exp_stat_sn": 9,
        },
        "43870000 00000064 023d0102 03045566" + "00000001 00070000 00000008 00000009" + "00" * 16,
    ),
    (
        pdu.LoginResponse,
        {
            "current_stage": 1,
            "isid": bytes.fromhex("023d01020304"),
            "tsih": 0,
            "itt": 1,
            "stat_sn": 2,
            "exp_cmd_sn": 3,
            "max_cmd_sn": 4,
            "status": 0x0203,
        },
        "23040000 00000000 023d0102 03040000" + "00000001 00000000 00000002 00000003" + "00000004 02030000" + "00" * 8,
    ),
    (
        pdu.LogoutRequest,
        {"immediate": 1, "final": 1, "reason": 1, "itt": 1, "cid": 2, "cmd_sn": 3, "exp_stat_sn": 4},
        "46810000 00000000" + NO_LUN + "00000001 00020000 00000003 00000004" + "00" * 16,
    ),
    (
        pdu.LogoutResponse,
        {"response": 1, "itt": 1, "stat_sn": 2, "exp_cmd_sn": 3, "max_cmd_sn": 4, "time2wait_s": 5, "time2retain_s": 6},
        "26800100 00000000" + NO_LUN + "00000001 00000000 00000002 00000003" + "00000004 00000000 00050006 00000000",
    ),
    (
        pdu.Reject,
        {"reason": 4, "data_bytes": 48, "stat_sn": 1, "exp_cmd_sn": 2, "max_cmd_sn": 3, "data_sn": 4},
        "3f800400 00000030" + NO_LUN + "ffffffff 00000000 00000001 00000002" + "00000003 00000004" + "00" * 8,
    ),
    (
        pdu.NopIn,
        {"lun": 1 << 48, "itt": pdu.NO_TAG, "ttt": 1, "stat_sn": 2, "exp_cmd_sn": 3, "max_cmd_sn": 4},
        "20800000 00000000" + LUN_1 + "ffffffff 00000001 00000002 00000003" + "00000004" + "00" * 12,
    ),
]
IDS = [f"{number}-{entry[0].__name__}" for number, entry in enumerate(GOLDEN)]


@pytest.mark.parametrize(("format_", "fields", "text"), GOLDEN, ids=IDS)
def test_a_pdu_is_built_as_the_standard_draws_it(format_: type[Wire], fields: dict[str, Any], text: str) -> None:
    assert format_.build(**fields).hex() == text.replace(" ", "")


@pytest.mark.parametrize(("format_", "fields", "text"), GOLDEN, ids=IDS)
def test_a_pdu_is_read_as_the_standard_draws_it(format_: type[Wire], fields: dict[str, Any], text: str) -> None:
    parsed = format_.parse(bytes.fromhex(text))
    assert {name: getattr(parsed, name) for name in fields} == fields


def test_every_format_is_in_the_golden_list() -> None:
    declared = {cls for cls in vars(pdu).values() if isinstance(cls, type) and issubclass(cls, Wire)}
    helpers = {Wire, pdu.BasicHeader, pdu.AhsHeader, pdu.SenseHeader}
    assert {entry[0] for entry in GOLDEN} == declared - helpers


def test_another_opcode_is_refused() -> None:
    with pytest.raises(WireError):
        pdu.NopOut.parse(bytes([0x01]) + bytes(47))


@pytest.mark.parametrize("format_", list(pdu.TARGET_PDUS.values()), ids=lambda cls: cls.__name__)
def test_target_pdus_are_found_by_their_opcode(format_: type[Wire]) -> None:
    opcode = format_.FIELDS["opcode"]
    assert pdu.TARGET_PDUS[pdu.BasicHeader.parse(format_.build()).opcode] is format_
    assert opcode.value in pdu.TARGET_PDUS


@pytest.mark.parametrize(("length", "padded"), [(0, 0), (1, 4), (3, 4), (4, 4), (5, 8)])
def test_segments_are_padded_to_words(length: int, padded: int) -> None:
    assert pdu.padded(length) == padded
    assert pdu.data_segment(b"x" * length) == b"x" * length + bytes(padded - length)


# The hot path's declarations must say the same as the general ones.

FAST = [
    (fast.Command10, pdu.ScsiCommand),
    (fast.Command16, pdu.ScsiCommand),
    (fast.FastDataIn, pdu.DataIn),
    (fast.FastScsiResponse, pdu.ScsiResponse),
]


@pytest.mark.parametrize(("quick", "full"), FAST, ids=lambda cls: cls.__name__)
def test_fields_of_the_hot_path_lie_where_the_general_ones_do(quick: type[Wire], full: type[Wire]) -> None:
    shared = (quick.FIELDS.keys() & full.FIELDS.keys()) - {"opcode"}
    assert len(shared) >= 4
    for name in shared:
        one, other = quick.FIELDS[name], full.FIELDS[name]
        assert (one.first_bit, one.width) == (other.first_bit, other.width), name


@pytest.mark.parametrize("quick", [cls for cls, _ in FAST], ids=lambda cls: cls.__name__)
def test_a_derived_struct_is_the_declaration(quick: type[Wire]) -> None:
    ordered = sorted(quick.FIELDS.values(), key=lambda f: f.first_bit)
    values = [(1 << field.width) - 2 - number for number, field in enumerate(ordered)]
    raw = packer(quick).pack(*values)
    assert raw == quick.build(**{field.name: value for field, value in zip(ordered, values, strict=True)})


def test_flags_of_the_hot_path() -> None:
    read = pdu.ScsiCommand.build(final=1, read=1)
    write = pdu.ScsiCommand.build(final=1, write=1)
    assert (read[1], write[1]) == (fast.FINAL_READ, fast.FINAL_WRITE)
    assert pdu.DataIn.build(final=1, status_here=1)[1] == fast.LAST_WITH_STATUS
    assert pdu.DataIn.build(final=1)[1] == fast.LAST_OF_BURST == pdu.ScsiResponse.build()[1]


def test_a_field_of_odd_width_has_no_struct() -> None:
    class Odd(Wire, size=2):
        half = Bits(byte=0, width=4)

    with pytest.raises(TypeError, match=r"Odd\.half"):
        packer(Odd)
