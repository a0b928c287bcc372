"""Both ledgers are checked reading for reading, at one position, while readings pour in."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_sdk.wire import Rejection
from hub.audit import Books, audit_object, check, take_books
from hub.journal.base import Losses
from hub.journal.sqlite import SqliteJournal
from hub.store.embedded import EmbeddedStore
from tests.support.frames import STREAM, T0, FrameMaker


class Sides:
    """A journal and a store on files of the test, and the frames between them."""

    def __init__(self, folder: Path) -> None:
        self.journal = SqliteJournal(folder / "journal.sqlite3")
        self.store = EmbeddedStore(folder / "readings.sqlite3")
        self.maker = FrameMaker()

    def books(self, known: tuple[int, ...] = (1,)) -> Books:
        """Take the books of everything."""
        return take_books(lambda after: self.journal.account("default", None, after), self.store.account, known)

    def answer(self) -> dict[str, Any]:
        """Return the whole answer to somebody who may see all."""
        return audit_object(self.books(), lambda *_: True)

    def store_all(self) -> None:
        """Let the store catch up."""
        self.store.write(self.journal.read(self.store.applied, 2**40) if self.store.applied < self.journal.head else [])


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    """A device with 5 readings, a declared loss, a rejection; the store has them all."""
    sides = Sides(tmp_path)
    maker = sides.maker
    frames = [
        maker.batch("pump", [("t", T0 + n, float(n)) for n in (0, 1, 2)]),
        maker.gap("pump", 70),
        maker.batch("pump", [("t", T0 + n, 9.0) for n in (1, 3)], rejected=(Rejection(3, "t", 2, "type_conflict"),)),
    ]
    sides.journal.append(frames, maker.all_series())
    sides.store_all()
    yield sides
    sides.store.close()
    sides.journal.close()


def test_ledgers_balance_with_every_loss_named(sides: Sides) -> None:
    """What was lost and refused is counted, explained and timed; the rest is in the store row for row."""
    answer = sides.answer()

    (device,) = answer["devices"]
    assert (answer["balanced"], answer["behind"], device["in_flight"]) == (True, 0, 0)
    assert (device["produced"], device["accepted"], device["dropped"], device["rejected"]) == (76, 5, 70, 1)
    assert device["summary"] == (
        "1 stream, 5 readings; 71 readings missing: 70 lost, the device's spool was full while it could not send; "
        "1 rejected, the channel has values of another type"
    )
    (gap,) = answer["gaps"]
    assert (gap["ranges"], gap["received_ns"]) == ({"t": [str(T0), str(T0 + 1)]}, str(T0))
    assert [(s["accepted"], s["superseded"], s["rows"], s["balanced"]) for s in answer["series"]] == [(5, 1, 4, True)]
    assert [(s["complete"], s["balanced"], s["produced"]) for s in answer["streams"]] == [(False, True, 76)]


def test_nothing_missing_is_said_in_one_line(tmp_path: Path) -> None:
    """The line that people look for."""
    sides = Sides(tmp_path)
    sides.journal.append([sides.maker.one("pump", 1.0)], sides.maker.all_series())
    sides.store_all()

    assert [d["summary"] for d in sides.answer()["devices"]] == ["1 stream, 1 reading, all accounted for"]


def test_loss_of_unknown_count_is_named(sides: Sides) -> None:
    """A gap that cannot say how many is never hidden behind a sum."""
    sides.journal.append([sides.maker.gap("pump", None, "power_cut")], [])
    sides.store_all()

    answer = sides.answer()

    assert answer["devices"][0]["unknown_gaps"] == answer["streams"][0]["unknown_gaps"] == 1
    assert "an unknown number lost, the device lost power" in answer["devices"][0]["summary"]


def test_readings_on_their_way_are_no_imbalance(sides: Sides) -> None:
    """What the store has not taken yet is in flight, counted exactly."""
    sides.journal.append([sides.maker.batch("pump", [("t", T0 + 10 + n, 1.0) for n in range(4)])], [])

    answer = sides.answer()

    assert (answer["balanced"], answer["behind"], answer["devices"][0]["in_flight"]) == (True, 1, 4)


def test_tail_too_long_to_read_is_not_known(sides: Sides) -> None:
    """An audit that cannot compare the two sides says so: not balanced, not unbalanced."""
    books = sides.books()
    books.journal = replace(books.journal, tail=None)

    assert audit_object(books, lambda *_: True)["balanced"] is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        pytest.param({"accepted": 4}, "1 accepted readings are not in the store", id="acked and not stored"),
        pytest.param(
            {"accepted": 6}, "the store holds 1 readings that the journal does not know", id="journal restored"
        ),
        pytest.param({"rows": 3}, "4 rows are expected of 1 series, 3 stored", id="a row is gone"),
        pytest.param({"rows": 5}, "4 rows are expected of 1 series, 5 stored", id="a row too many"),
    ],
)
def test_a_missing_row_does_not_balance(sides: Sides, change: dict[str, int], finding: str) -> None:
    """One reading more or less than the ledgers say is found and said."""
    books = sides.books()
    extra = {"superseded": 1 + change.get("accepted", 5) - 5}
    books.store = replace(books.store, series=[replace(books.store.series[0], **extra, **change)])

    device = check(books)["pump"]

    assert (device.balanced, device.findings[0].startswith(finding)) == (False, True), device.findings
    assert audit_object(books, lambda *_: True)["balanced"] is False


def test_a_loss_that_no_gap_names_does_not_balance(sides: Sides) -> None:
    """What a stream counts as dropped is what its gaps name, unless the oldest gaps are no longer kept."""
    books = sides.books()
    (key,) = books.journal.losses
    books.journal = replace(books.journal, losses={key: [Losses("spool_full", 69, 0)]})

    assert check(books)["pump"].findings == [f"stream {STREAM}: 70 readings count as dropped, its gaps name 69"]
    books.journal = replace(books.journal, are_gaps_whole=False)
    assert check(books)["pump"].balanced


def test_rejections_are_itemised_whole(sides: Sides) -> None:
    """Every rejected reading has a reason."""
    books = sides.books()
    books.journal = replace(books.journal, rejections=[])

    assert check(books)["pump"].findings == ["1 readings count as rejected, the reasons name 0"]


def test_asker_sees_only_what_is_granted(sides: Sides) -> None:
    """Channels that are not granted have no name in the answer; the device's own figures stay whole."""
    sides.journal.append([sides.maker.one("pump", 1.0, channel="secret")], sides.maker.all_series())
    sides.store_all()

    answer = audit_object(sides.books(), lambda device, channel: channel in ("", "t"))

    assert "secret" not in str(answer)
    assert (answer["balanced"], answer["devices"][0]["accepted"]) == (True, 6)


def test_series_not_known_before_is_asked_for(sides: Sides) -> None:
    """A series that began meanwhile is part of the comparison."""
    sides.journal.append([sides.maker.one("fan", 1.0)], sides.maker.all_series())
    sides.store_all()

    assert {d["device"]: d["balanced"] for d in sides.answer()["devices"]} == {"fan": True, "pump": True}


@pytest.mark.slow  # threads that write and read beside each other, for as long as it takes to meet
def test_audit_is_consistent_while_readings_pour_in(tmp_path: Path) -> None:
    """Taken again and again beside a writing journal and a store that lags, every audit balances to the reading."""
    sides, ends = Sides(tmp_path), threading.Event()

    def accept() -> None:
        """New devices begin all the time; the store is told of nothing."""
        for n in range(400):
            frames = [
                sides.maker.batch(f"device-{d}", [("t", T0 + (n * 7 + i) * 10**9, float(i)) for i in range(7)])
                for d in range(1 + n // 40)
            ]
            sides.journal.append(frames, sides.maker.all_series())
        ends.set()

    def carry() -> None:
        while not ends.is_set() or sides.store.applied < sides.journal.head:
            head = sides.journal.head
            if sides.store.applied < head:
                sides.store.write(sides.journal.read(sides.store.applied, 3000, head))

    threads = [threading.Thread(target=accept), threading.Thread(target=carry)]
    for thread in threads:
        thread.start()
    answers = []
    while any(thread.is_alive() for thread in threads):
        answers.append(sides.answer())
    for thread in threads:
        thread.join()

    assert [a["devices"] for a in answers if a["balanced"] is False] == []
    assert sum(a["balanced"] is True and a["behind"] > 0 for a in answers) >= 3
    last = sides.answer()
    assert (last["balanced"], last["behind"]) == (True, 0)
    assert sum(d["rows"] for d in last["devices"]) == sum(7 * (1 + n // 40) for n in range(400))
    sides.store.close()
    sides.journal.close()


def test_sums_that_no_64_bits_hold_are_cut(sides: Sides) -> None:
    """A device chooses the counts of its gaps; JSON and the page take no more than 64 bits."""
    sides.journal.append([sides.maker.gap("pump", 2**63 - 1) for _ in range(3)], ())

    answer = sides.answer()

    assert answer["devices"][0]["dropped"] == answer["devices"][0]["produced"] == 2**63 - 1
