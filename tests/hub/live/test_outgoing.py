"""`hub.live.outgoing`: every op of a client has its answer; that real messages fit is shown where they are described.

See `tests.hub.gateway.test_asyncapi`.
"""

from typing import Any, get_args, get_type_hints

from hub.live import outgoing
from hub.live.message import ClientMessage


def op_of(kind: Any) -> str:
    """Return the op of a message."""
    return str(get_args(get_type_hints(kind)["op"])[0])


def test_every_op_of_a_client_is_answered() -> None:
    """An op that is added to what clients say needs an answer here."""
    ops = {get_args(model.model_fields["op"].annotation)[0] for model in get_args(ClientMessage)}

    assert set(outgoing.ANSWERS) == ops


def test_messages_of_one_op_are_told_apart_by_their_fields() -> None:
    """`ok` answers three ops with other fields each; what comes unasked has an op of its own."""
    oks = [frozenset(kind.__annotations__) for kind in outgoing.ANSWERS.values() if op_of(kind) == "ok"]

    assert len(set(oks)) == 3
    assert [op_of(kind) for kind in outgoing.TOLD] == ["series", "data", "live", "lag", "reset"]
