"""The hub's figures for a monitoring system.

Place: `hub.gateway.rest`.
"""

from weakref import WeakKeyDictionary

from starlette.responses import Response

from hub.errors import ForbiddenError
from hub.gateway.endpoint import Call, Endpoint, Nothing
from hub.gateway.metrics import CONTENT_TYPE, Metrics
from hub.live.rooms import Live
from hub.roles import DEFAULT_NAMESPACE, Verb

# The figures of each hub of this process, by its live side: they end with it.
_of_hubs: "WeakKeyDictionary[Live, Metrics]" = WeakKeyDictionary()


async def metrics(call: Call, _: Nothing) -> Response:
    """Tell the hub's figures in Prometheus' text format, gathered at most once a second.

    They are of all namespaces, and name no device, person or address: of watchers the worst by connection. So a token
    that may read everything in the namespace `default` is enough, and a monitoring system need not be able to command.
    """
    if call.namespace != DEFAULT_NAMESPACE:
        raise ForbiddenError(f"the figures are of all namespaces: they take a token of {DEFAULT_NAMESPACE!r}")
    made = _of_hubs.get(call.hub.live)
    if made is None:
        made = _of_hubs[call.hub.live] = Metrics()
    return Response(await made.text(call.hub), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/metrics", "Figures of the hub for Prometheus", Verb.READ, Nothing, None, metrics, whole=True,
             media=("text/plain",)),
)  # fmt: skip
