"""A publication that comes again is known by identifier and bytes, for a while, over connections, in bounded memory."""

from hub.mqtt.handler import Code
from hub.mqtt.recent import MARKS, MAX_MARKS, MAX_MORE, WINDOW_S, Recent, mark_of


def mark(number: int, payload: bytes = b"21.5") -> int:
    """The mark of a publication on one topic."""
    return mark_of(number.to_bytes(2), "a", payload)


def test_mark_has_identifier_topic_and_payload() -> None:
    """A difference in any of them is another mark."""
    marks = {mark(1), mark(2), mark(1, b"21.6"), mark_of(b"\0\1", "b", b"21.5"), mark_of(b"\1\0", "a", b"21.5")}

    assert len(marks) == 5
    assert all(0 <= found < 2**64 for found in marks)
    assert mark(1) == mark(1)


def test_publication_is_known_again_over_connections() -> None:
    """By the client that sent it, and by no other."""
    recent = Recent()
    recent.of("a").remember(mark(1))

    assert recent.of("a").has(mark(1))
    assert not recent.of("a").has(mark(2))
    assert not recent.of("b").has(mark(1))


def test_only_the_last_of_an_identifier_counts() -> None:
    """Another publication under the same identifier means that the client had the PUBACK of the one before."""
    memory = Recent().of("a")
    memory.remember(mark(1))
    memory.remember(mark(1, b"21.6"))

    assert not memory.has(mark(1))
    assert memory.has(mark(1, b"21.6"))


def test_publication_is_forgotten_after_the_window() -> None:
    """The same value under the same identifier may well be another one an hour later."""
    recent = Recent()
    memory = recent.of("a")
    recent.now = 100.0
    memory.remember(mark(1))

    recent.now = 100.0 + WINDOW_S
    assert memory.has(mark(1))
    recent.now += 0.1
    assert not memory.has(mark(1))


def test_publications_beyond_the_number_are_forgotten_oldest_first() -> None:
    """Whatever round the ring is in."""
    memory = Recent().of("a")
    for number in range(1, 3 * MARKS + 6):
        memory.remember(mark(number))
        known = [other for other in range(1, number + 1) if memory.has(mark(other))]
        assert known == list(range(max(1, number - MARKS + 1), number + 1))


def test_client_with_more_on_its_way_has_a_longer_memory() -> None:
    """As many as it may send again, whatever round its ring is in; but no more than there are marks at all."""
    memory = Recent().of("a")
    for number in range(1, MARKS + 7):
        memory.remember(mark(number))
    for number in range(MARKS + 7, MARKS + 407):
        memory.remember(mark(number), among=500)
    assert all(memory.has(mark(number)) for number in range(7, MARKS + 407))
    memory.remember(mark(MARKS + 407), among=10 * MAX_MARKS)

    assert memory.width == MAX_MARKS


def test_publications_that_were_left_count_as_on_their_way() -> None:
    """Their connection ended before any of them was stored."""
    memory = Recent().of("a")
    for number in range(1, 501):
        memory.leave(mark(number))
    for number in range(1, 501):
        memory.remember(mark(number))
        memory.settle(mark(number), Code.SUCCESS)

    assert all(memory.has(mark(number)) for number in range(1, 501))


def test_long_memories_of_all_clients_are_bounded() -> None:
    """The clients not asked for longest are forgotten; one that is forgotten already counts no more."""
    recent = Recent()
    most = MAX_MORE // (MAX_MARKS - MARKS)
    first = recent.of("first")
    for number in range(most):
        recent.of(f"c{number}").remember(mark(1), among=MAX_MARKS)
    assert len(recent) == most + 1

    first.remember(mark(1), among=MAX_MARKS)
    first.remember(mark(2), among=MAX_MARKS)
    recent.of("next").remember(mark(1), among=MAX_MARKS)

    assert len(recent) == most
    assert recent.of("next").has(mark(1))
    assert recent.of(f"c{most - 1}").has(mark(1))
    assert not first.is_kept


def test_clients_beyond_the_number_are_forgotten_least_recent_first() -> None:
    """A client that is asked for again is recent."""
    recent = Recent(max_clients=2)
    for name in ("a", "b"):
        recent.of(name).remember(mark(1))
    recent.of("a")

    recent.of("c")

    assert len(recent) == 2
    assert recent.of("a").has(mark(1))
    assert not recent.of("b").has(mark(1))


def test_publication_that_is_being_stored_is_joined() -> None:
    """Whoever sends it again is told with the first, once; afterwards there is nothing to join."""
    memory = Recent().of("a")
    told: list[tuple[str, Code]] = []
    memory.leave(mark(1))

    assert memory.join(mark(1), lambda code: told.append(("x", code)))
    assert memory.join(mark(1), lambda code: told.append(("y", code)))
    assert not memory.join(mark(2), lambda code: None)
    memory.settle(mark(1), Code.SUCCESS)
    memory.settle(mark(1), Code.UNSPECIFIED)

    assert told == [("x", Code.SUCCESS), ("y", Code.SUCCESS)]
    assert not memory.join(mark(1), lambda code: None)
