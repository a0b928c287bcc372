"""Records inside the hub: a frame says how much memory it takes, and says the same for as long as it lives."""

import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from device_sdk.reading import Value, ValueType
from device_sdk.wire import CHAIN_START
from hub.description import ChannelDescription
from hub.model import Effective, Frame, Kind, Series, StreamKey
from hub.validate import check_batch, parse_message

T0 = 1_795_376_000_000_000_000
KEY = StreamKey("default", "d", "9f3a000000000001")


def received(seq: int, columns: Mapping[str, Sequence[Value]], find: Callable[[str], Series | None]) -> Frame:
    """Return a batch as it is after validation, on its way to the journal."""
    count = sum(map(len, columns.values()))
    obj = {
        "op": "batch", "seq": seq, "count": count, "t0": str(T0 + seq * 10**9), "tick": 1,
        "c": {name: {"dt": [300 * seq + 7 * i for i in range(len(v))], "v": v} for name, v in columns.items()},
    }  # fmt: skip
    data = json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode()
    batch = parse_message(data, True)
    checked = check_batch(batch, data, find)  # type: ignore[arg-type]  # it is a batch
    return Frame(
        KEY, seq, Kind.BATCH, T0 + seq, checked.body, bytes(CHAIN_START), T0, 1, checked.columns, checked.readings,
        checked.rejected, checked.rejected_count,
    )  # fmt: skip


def taken_and_counted(make: Callable[[int], Frame], count: int = 100) -> float:
    """Return the memory that frames take, by tracemalloc, over what they say they take."""
    tracemalloc.start()
    frames = [make(seq) for seq in range(1, count + 1)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / sum(frame.memory_bytes for frame in frames)


@pytest.mark.parametrize("name", ["c{}", "c{}-" + "n" * 90])
def test_refused_readings_are_counted(name: str) -> None:
    """Until the commit a frame names what was refused of it: ten times the rest of it, and the names are a peer's."""
    many = {name.format(i): [1.5] for i in range(100)}
    one = {name.format(0): [1.5] * 100}

    # Less than counted where the reader of JSON shares short names between frames.
    assert 0.6 < taken_and_counted(lambda seq: received(seq, many, lambda _: None)) < 1.35
    assert 0.8 < taken_and_counted(lambda seq: received(seq, one, lambda _: None)) < 1.35


def test_what_a_frame_says_does_not_change_by_itself() -> None:
    """A queue takes off what it added: only `forget_rejected` makes a frame lighter."""
    frame = received(1, {"x": [1.5] * 100}, lambda _: None)
    before = frame.memory_bytes

    frame.rejected = ()
    assert frame.memory_bytes == before > 9600

    frame.forget_rejected()
    assert (frame.rejected, frame.rejected_count) == ((), 100)
    assert frame.memory_bytes < 1000


@pytest.mark.parametrize("value", ["on", "a" * 1000, "a" * 1000 + "\N{GRINNING FACE}"], ids=["short", "ASCII", "UCS-4"])
def test_texts_are_counted_as_they_are_in_memory(value: str) -> None:
    """One character outside the basic plane makes four bytes of each that came as one."""
    find = {"x": Series(1, "default", "d", "x", ValueType.STR)}.get

    assert (
        0.75
        < taken_and_counted(lambda seq: received(seq, {"x": [f"{seq}-{i}-{value}" for i in range(50)]}, find))
        < 1.35
    )


def test_what_a_person_set_wins_field_by_field() -> None:
    """Each field that is set replaces the declared one; others stay; a scale is none for switches and makes floats."""
    declared = Series(1, "default", "d", "x", ValueType.INT, "Cel", 1.0, 0.0, 50.0, "Air")
    assert declared.effective() == Effective("Air", "Cel", None, 0.0, 50.0, None, None, None, 1.0)

    described = replace(
        declared, described=ChannelDescription(unit="K", scale=2.0, offset=1.0, high=90.0, every_s=60.0)
    )
    switch = replace(described, type=ValueType.BOOL)

    assert described.effective() == Effective("Air", "K", None, 1.0, 90.0, None, 2.0, 1.0, 60.0)
    assert (declared.shown_type, described.shown_type) == (ValueType.INT, ValueType.FLOAT)
    assert switch.effective() == Effective("Air", "K", None, 0.0, 90.0, None, None, None, 60.0)
