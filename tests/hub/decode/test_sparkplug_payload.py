"""Payloads of Sparkplug B: what each data type means, and that no bytes do harm."""

import math
import struct
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk.reading import Value
from hub.decode import sparkplug_payload
from hub.decode.base import DecodeError
from hub.decode.sparkplug_payload import (
    DataType,
    Metric,
    MisfitError,
    UnfitError,
    parse,
    payload_class,
    rebirth,
    shortest,
    value_of,
)
from tests.support.sparkplug import T0_MS, payload


def _metric(**fields: Any) -> Metric:
    (metric,) = parse(payload(fields)).metrics
    return metric


def test_parse_reads_what_other_implementations_write() -> None:
    """The bytes are of the specification's field numbers, written by hand: timestamp, one metric, seq."""
    metric = b"\x0a\x04Temp" + b"\x10\x00" + b"\x20\x09" + b"\x65" + struct.pack("<f", 21.5)
    data = b"\x08" + _varint(T0_MS) + b"\x12" + bytes([len(metric)]) + metric + b"\x18\x07"

    found = parse(data)

    assert (found.time_ms, found.seq) == (T0_MS, 7)
    assert found.metrics == (Metric("Temp", 0, None, 9, "float_value", 21.5, False, False, None, None),)


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


@pytest.mark.parametrize(
    ("datatype", "field", "raw", "value"),
    [
        (DataType.INT8, "int_value", 0xFFFF_FFFB, -5),
        (DataType.INT8, "int_value", 0xFB, -5),
        (DataType.INT16, "int_value", 0x8000, -32768),
        (DataType.INT32, "int_value", 0xFFFF_FFFF, -1),
        (DataType.INT32, "long_value", 0xFFFF_FFFF_FFFF_FFFF, -1),
        (DataType.INT64, "long_value", 2**64 - 5, -5),
        (DataType.INT64, "long_value", 2**63 - 1, 2**63 - 1),
        (DataType.UINT8, "int_value", 200, 200),
        (DataType.UINT16, "int_value", 65535, 65535),
        (DataType.UINT32, "int_value", 2**32 - 1, 2**32 - 1),
        (DataType.UINT32, "long_value", 2**32 - 1, 2**32 - 1),
        (DataType.UINT64, "long_value", 2**63 - 1, 2**63 - 1),
        (DataType.UINT64, "long_value", 2**63, float(2**63)),
        (DataType.FLOAT, "float_value", 21.53, 21.53),
        (DataType.FLOAT, "int_value", 3, 3.0),
        (DataType.DOUBLE, "double_value", 21.530000686645508, 21.530000686645508),
        (DataType.BOOLEAN, "boolean_value", True, True),
        (DataType.STRING, "string_value", "°C", "°C"),
        (DataType.TEXT, "string_value", "long", "long"),
        (DataType.UUID, "string_value", "0c9c", "0c9c"),
        (DataType.DATE_TIME, "long_value", T0_MS, T0_MS),
        (DataType.UNKNOWN, "double_value", 2.5, 2.5),
        (DataType.UNKNOWN, "string_value", "on", "on"),
    ],
)
def test_value_is_what_the_type_says(datatype: DataType, field: str, raw: Any, value: Value) -> None:
    """Signed integers are two's complement, extended or not; 32-bit floats are the decimals that were meant."""
    found = value_of(_metric(datatype=datatype, field=field, value=raw), datatype)

    assert found == value
    assert type(found) is type(value)


def test_value_of_null_is_none() -> None:
    """A metric that says null, has no value, or one that is no number, holds none."""
    assert value_of(_metric(datatype=DataType.FLOAT, is_null=True, value=1.0), DataType.FLOAT) is None
    assert value_of(_metric(datatype=DataType.FLOAT), DataType.FLOAT) is None
    assert value_of(_metric(datatype=DataType.FLOAT, value=math.nan), DataType.FLOAT) is None
    assert value_of(_metric(datatype=DataType.DOUBLE, value=-math.inf), DataType.DOUBLE) is None


@pytest.mark.parametrize(
    ("datatype", "field"),
    [(16, "dataset_value"), (17, "bytes_value"), (18, "bytes_value"), (19, "template_value"), (22, "bytes_value"),
     (99, "int_value"), (0, "extension_value")],
)  # fmt: skip
def test_value_of_no_reading_says_why(datatype: int, field: str) -> None:
    """Data sets, templates, files, arrays and types of later versions are no readings."""
    value: Any = 1 if field == "int_value" else b"\xff\xff"

    with pytest.raises(UnfitError, match="no reading"):
        value_of(_metric(datatype=datatype, field=field, value=value), datatype)


def test_text_that_is_not_utf8_says_so() -> None:
    """A value of broken text leaves the other metrics of its message alone."""
    metric = _metric(datatype=DataType.STRING, value="x")._replace(raw=b"\xff")

    with pytest.raises(UnfitError, match="UTF-8"):
        value_of(metric, DataType.STRING)


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [(DataType.STRING, "int_value", 5), (DataType.INT32, "string_value", "5"), (DataType.BOOLEAN, "float_value", 1.0),
     (DataType.UNKNOWN, "int_value", 5)],
)  # fmt: skip
def test_value_of_another_type_does_not_fit(datatype: DataType, field: str, value: Any) -> None:
    """A value in the field of another type is not converted, and whether an integer has a sign is not guessed."""
    with pytest.raises(MisfitError):
        value_of(_metric(datatype=datatype, field=field, value=value), datatype)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_is_the_same_32_bit_float(value: float) -> None:
    """The decimal that is kept gives the bits that came."""
    assert struct.pack("<f", shortest(value)) == struct.pack("<f", value)


def test_shortest_of_no_number_is_itself() -> None:
    """NaN and infinities stay what they are; nobody stores them."""
    assert math.isnan(shortest(math.nan))
    assert shortest(math.inf) == math.inf


def test_parse_takes_unit_and_quality_of_the_properties() -> None:
    """The unit is the property that clients call engUnit; others are left alone."""
    metric = _metric(name="a", properties={"engUnit": " °C ", "Quality": 192, "readOnly": "yes"})

    assert (metric.unit, metric.quality) == ("°C", 192)


def test_parse_refuses_what_is_no_payload() -> None:
    """A reason is said for broken bytes, texts that are none, compression, and more metrics than are meant."""
    for data in (b"\x0a", b"ONLINE", b"\x12\x05\x0a\x03\xff\xff\xff", payload(uuid=b"SPBV1.0_COMPRESSED")):
        with pytest.raises(DecodeError):
            parse(data)
    with pytest.raises(DecodeError, match="the limit is"):
        parse(b"\x12\x00" * (sparkplug_payload.MAX_METRICS + 1))


def test_without_protobuf_it_is_said_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message waits in quarantine, and can be replayed once the extra is there."""
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    payload_class.cache_clear()

    with pytest.raises(DecodeError, match=r"telemetry-hub\[sparkplug\]"):
        parse(b"")

    monkeypatch.undo()
    assert parse(b"").metrics == ()


def test_a_name_that_is_too_long_is_none() -> None:
    """Nothing unbounded is remembered: such a metric has its alias alone."""
    assert _metric(name="x" * 513, alias=3).name == ""


def test_rebirth_is_a_command_that_nodes_know() -> None:
    """One boolean metric of the name that the specification gives, with times."""
    message = payload_class()()
    message.ParseFromString(rebirth(T0_MS))
    (metric,) = message.metrics

    assert (message.timestamp, metric.timestamp) == (T0_MS, T0_MS)
    assert (metric.name, metric.datatype, metric.boolean_value) == (b"Node Control/Rebirth", 11, True)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_parse_of_any_bytes_answers_or_says_why(data: bytes) -> None:
    """No bytes raise anything else."""
    try:
        found = parse(data)
    except DecodeError:
        return
    for metric in found.metrics:
        with suppress(UnfitError):
            assert type(value_of(metric, metric.datatype)) in (float, int, bool, str, type(None))
