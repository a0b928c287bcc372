"""Whose topic it is; which filters a client may have, and which would wait for ever."""

import pytest

from hub.mqtt.handler import Code
from hub.mqtt.topics import Native, Topics


@pytest.mark.parametrize(
    ("topic", "native"),
    [
        ("hub/v1/pump-2/up", Native("pump-2", "up")),
        ("hub/v1/pump-2/up/more", Native("pump-2", "up/more")),
        ("hub/v1/pump-2", Native("pump-2", "")),
        ("hub/v1/", Native("", "")),
        ("hub/v1", None),
        ("hub/v10/pump-2/up", None),
        ("tele/pump-2/SENSOR", None),
    ],
)  # fmt: skip
def test_native_topics_lie_below_the_prefix(topic: str, native: Native | None) -> None:
    """All else is somebody else's form."""
    assert Topics().native(topic) == native


def test_prefix_can_be_another() -> None:
    """Of any number of levels."""
    topics = Topics("site/a/b")

    assert topics.native("site/a/b/d/up") == Native("d", "up")
    assert topics.down("d") == "site/a/b/d/down"
    assert topics.decide("site/a/b/d/down", "d".__eq__, is_gateway=False) is Code.SUCCESS
    assert topics.decide("hub/v1/d/down", "d".__eq__, is_gateway=False) is Code.NOT_AUTHORIZED


@pytest.mark.parametrize("filter_", ["hub/v1/d/down", "hub/v1/d/+", "hub/v1/d/#", "hub/v1/d/down/#"])
def test_device_may_have_its_own_down(filter_: str) -> None:
    """By each filter that takes nothing but its own topics."""
    topics = Topics()

    assert topics.decide(filter_, "d".__eq__, is_gateway=False) is Code.SUCCESS
    assert topics.takes_down(filter_, "d")


@pytest.mark.parametrize(
    "filter_",
    ["#", "+/#", "hub/#", "hub/+/d/down", "hub/v1/#", "hub/v1/+/down", "hub/v1/other/down", "hub/v1/d/up", "hub/v1/d",
     "hub/v1", "+/v1/d/down", "home/bedroom/temperature", "zigbee2mqtt/#", "zigbee2mqtt/bridge/devices", "set",
     "tele/+/SENSOR", "spBv1.0/#", "$SYS/#"],
)  # fmt: skip
def test_device_may_not_have_what_others_publish(filter_: str) -> None:
    """Nothing would come: here nobody gets what another has published."""
    assert Topics().decide(filter_, "d".__eq__, is_gateway=False) is Code.NOT_AUTHORIZED


@pytest.mark.parametrize(
    "filter_",
    ["v1/devices/me/rpc/request/+", "v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/gateway/rpc",
     "cmnd/tasmota_9CF9D1/#", "cmnd/tasmotas/#", "livingroom/switch/relay/command", "zigbee2mqtt/lamp/set",
     "zigbee2mqtt/+/set/#", "shellyplus1pm-a8/rpc", "shellyplus1pm-a8/command/#", "shellies/command",
     "shellies/shelly1-1/relay/0/command", "spBv1.0/plant/NCMD/edge/#", "spBv1.0/STATE/host", "homeassistant/status",
     "homie/lamp/light/on/set", "$aws/things/x/shadow/update/delta", "me/feeds/pump", "me/throttle"],
)  # fmt: skip
def test_device_may_have_what_it_is_told_on_by_the_form_of_others(filter_: str) -> None:
    """Such devices give up when one of these is refused."""
    assert Topics().decide(filter_, "d".__eq__, is_gateway=False) is Code.SUCCESS


def test_shared_subscriptions_are_refused_with_their_code() -> None:
    """There is no group to share with."""
    assert Topics().decide("$share/g/hub/v1/d/down", "d".__eq__, is_gateway=False) is Code.SHARED_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("filter_", "code"),
    [
        ("hub/v1/barn-1/down", Code.SUCCESS),
        ("hub/v1/+/down", Code.SUCCESS),
        ("hub/v1/other/down", Code.NOT_AUTHORIZED),
        ("hub/v1/#", Code.NOT_AUTHORIZED),
        ("zigbee2mqtt/#", Code.SUCCESS),
        ("hub/#", Code.NOT_AUTHORIZED),
        ("#", Code.NOT_AUTHORIZED),
        ("+/bridge/request/#", Code.SUCCESS),
    ],
)  # fmt: skip
def test_gateway_may_have_the_downs_of_its_children_and_its_own_tree(filter_: str, code: Code) -> None:
    """What comes on ``+`` is what is said to its children alone."""
    assert Topics().decide(filter_, lambda name: name.startswith("barn-"), is_gateway=True) is code
