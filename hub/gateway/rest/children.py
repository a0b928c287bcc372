"""Gateways and the devices behind them: who waits, who may speak, what is accepted by itself.

Place: `hub.gateway.rest`, above `hub.children`. A token of a gateway comes from `tokens`.
"""

import asyncio
from collections import Counter
from typing import Annotated, Literal

from pydantic import Field

from hub.child_book import MAX_QUOTA, ChildState, Rules
from hub.children import MAX_AUTO_ACCEPT
from hub.errors import NotFoundError
from hub.gateway.endpoint import Answer, Call, Endpoint, JsonObject, Nothing, Question
from hub.live.patterns import PatternSet
from hub.roles import Verb

Quota = Annotated[int, Field(ge=1, le=MAX_QUOTA, description="Children that may be accepted.")]
Names = Annotated[str, Field(max_length=64, description="Names of devices, with `*`.")]
AutoAccept = Annotated[
    list[Names], Field(max_length=MAX_AUTO_ACCEPT, description="New children of these names need nobody's word.")
]


class ChildQuestion(Question):
    """Which children: all, or those of a state, of a gateway."""

    state: ChildState | None = None
    gateway: Annotated[str | None, Field(max_length=64)] = None


class ChildListed(Answer):
    """A device behind a gateway; ``last_ns``: when it last said hello, to the minute."""

    gateway: str
    device: str
    state: ChildState
    first_ns: str
    last_ns: str


class ChildList(Answer):
    """Children, the newest first."""

    children: list[ChildListed]


class Decision(Question):
    """What is decided over a child; it counts at once, also for one that is connected."""

    state: Literal["accepted", "ignored"]


class RulesChange(Question):
    """What is to hold for the children of a gateway; what is left out stays."""

    quota: Quota | None = None
    auto_accept: AutoAccept | None = None


class GatewayRules(Answer):
    """What holds for the children of a gateway."""

    gateway: str
    quota: int
    auto_accept: list[str]


class GatewayListed(GatewayRules):
    """A gateway and how many children it has."""

    accepted: int
    pending: int
    ignored: int


class GatewayList(Answer):
    """Gateways by name."""

    gateways: list[GatewayListed]


async def list_children(call: Call, query: ChildQuestion) -> JsonObject:
    """List the devices behind gateways that the caller may manage."""
    granted = PatternSet(call.granted)
    return {
        "children": [
            {
                "gateway": c.gateway, "device": c.device, "state": c.state.value, "first_ns": str(c.first_ns),
                "last_ns": str(c.last_ns),
            }
            for c in call.hub.children.listed(namespace=call.namespace, gateway=query.gateway, state=query.state)
            if granted.matches(c.device, "*")
        ]
    }  # fmt: skip


async def decide(call: Call, body: Decision) -> None:
    """Accept or ignore a device behind a gateway, before it came or after."""
    children, device = call.hub.children, call.check_device(call.path["device"])
    act = children.accept if body.state == "accepted" else children.ignore
    await asyncio.to_thread(act, call.path["gateway"], device, namespace=call.namespace)


async def forget(call: Call, _: Nothing) -> None:
    """Undo what was decided over a device behind a gateway; its readings stay, and if it comes again, it is new."""
    device = call.check_device(call.path["device"])
    await asyncio.to_thread(call.hub.children.forget, call.path["gateway"], device, namespace=call.namespace)


async def list_gateways(call: Call, _: Nothing) -> JsonObject:
    """List gateways, what holds for their children, and how many they have."""
    counts = Counter((c.gateway, c.state) for c in call.hub.children.listed(namespace=call.namespace))
    gateways = call.hub.children.gateways(namespace=call.namespace)
    return {
        "gateways": [
            {**_rules_object(name, rules), **{state.value: counts[name, state] for state in ChildState}}
            for name, rules in gateways.items()
        ]
    }


async def set_rules(call: Call, body: RulesChange) -> JsonObject:
    """Change the quota of a gateway, or which new children are accepted by themselves."""
    gateway, children = call.path["gateway"], call.hub.children
    if gateway not in children.gateways(namespace=call.namespace):
        raise NotFoundError(f"no gateway {gateway[:80]!r}; see them with: hub children gateways")
    rules = await asyncio.to_thread(
        children.set_rules, gateway, quota=body.quota, auto_accept=body.auto_accept, namespace=call.namespace
    )
    return _rules_object(gateway, rules)


async def remove_gateway(call: Call, _: Nothing) -> None:
    """Forget a gateway and what was decided over its children; its tokens are ended by themselves."""
    await asyncio.to_thread(call.hub.children.remove_gateway, call.path["gateway"], namespace=call.namespace)


def _rules_object(gateway: str, rules: Rules) -> JsonObject:
    return {"gateway": gateway, "quota": rules.quota, "auto_accept": list(rules.auto_accept)}


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/children", "Devices behind gateways", Verb.MANAGE, ChildQuestion, ChildList, list_children),
    Endpoint("POST", "/v1/gateways/{gateway}/children/{device}", "Accept or ignore a device behind a gateway",
             Verb.MANAGE, Decision, None, decide, 204),
    Endpoint("DELETE", "/v1/gateways/{gateway}/children/{device}", "Forget a device behind a gateway", Verb.MANAGE,
             Nothing, None, forget, 204),
    Endpoint("GET", "/v1/gateways", "Gateways", Verb.MANAGE, Nothing, GatewayList, list_gateways, whole=True),
    Endpoint("PATCH", "/v1/gateways/{gateway}", "Change what holds for a gateway's children", Verb.MANAGE, RulesChange,
             GatewayRules, set_rules, whole=True),
    Endpoint("DELETE", "/v1/gateways/{gateway}", "Forget a gateway", Verb.MANAGE, Nothing, None, remove_gateway, 204,
             whole=True),
)  # fmt: skip
