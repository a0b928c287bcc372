"""`hub.incident`: the words of an incident."""

from hub.incident import both


def test_peers_are_in_one_order_and_only_those_known() -> None:
    """Whoever was first, the same two are one kind: the log counts kinds."""
    assert both("192.0.2.7", "192.0.2.5") == both("192.0.2.5", "192.0.2.7") == "192.0.2.5 and 192.0.2.7"
    assert both("192.0.2.7", "192.0.2.7") == "192.0.2.7 and 192.0.2.7"
    assert both("192.0.2.7", "") == "192.0.2.7"
