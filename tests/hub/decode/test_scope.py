"""Who a sender is."""

from hub.decode.scope import Scope


def test_one_device_has_the_name_of_its_credential() -> None:
    """A sender of many is asked for the name it gives."""
    assert Scope("boiler").own("tasmota 9CF9D1") == "boiler"
    assert Scope().own("tasmota 9CF9D1") == "tasmota-9CF9D1"
