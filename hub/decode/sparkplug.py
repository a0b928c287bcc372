"""Sparkplug B 3.0, as a host application: births name and type the metrics, data and commands follow them by alias.

Owns: topics, which metrics are readings, whose they are. Place: after `sparkplug_node`; one of the decoders. Pure.

Edge node ``N`` of group ``G`` is device ``G-N``, its device ``D`` is ``G-N-D``. A client that is one device by its
credential is that device, and the metrics of its devices have their names in front.

Metrics are readings of their own time. Left out are controls (``bdSeq``, ``Node Control/…``), metrics without a value
or of bad or stale quality, transient ones, which are not meant for history, and data sets, templates, files and arrays.
While a hole in the sequence may hide a birth, aliases mean what they meant before: one lost message of data must not
cost the others, and a value that does not fit its type is noticed.
Source: Sparkplug 3.0.0, sections 4 to 6.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Generator, Sequence
from typing import NamedTuple

from device_sdk.reading import MAX_STRING_BYTES, Channel, Value
from hub.decode.base import Answer, Decoded, DecodeError, ForeignReading, Publication, Said, at_once
from hub.decode.moment import since_epoch_ns
from hub.decode.naming import Names, label_of
from hub.decode.scope import Scope
from hub.decode.sparkplug_node import Known, Node
from hub.decode.sparkplug_payload import (
    STEP,
    Metric,
    MisfitError,
    Payload,
    UnfitError,
    parsing,
    rebirth,
    value_of,
    value_type,
)
from hub.unit import unit_code

PREFIX = "spBv1.0"
# Of one sender. A metric takes about 500 bytes. A plant behind a bridge has tens of nodes with some thousand metrics.
MAX_NODES = 1_000
MAX_METRICS = 50_000
# Of a client that is one device: it has at most 200 channels, and there may be a thousand such clients.
MAX_METRICS_OF_DEVICE = 1_000
# Of one node, however many there are: it leaves room for others.
_SHARE = 4
# Requests for births a second, over all nodes: a hub that starts beside a thousand nodes does not call all at once.
MAX_ASKED_PER_S = 20
MAX_UNIT_CHARS = 32

_BD_SEQ = "bdSeq"
_CONTROLS = ("Node Control/", "Device Control/")
_OF_NODE = frozenset({"NBIRTH", "NDATA", "NDEATH", "NCMD"})
_OF_DEVICE = frozenset({"DBIRTH", "DDATA", "DDEATH", "DCMD"})
_BIRTHS = frozenset({"NBIRTH", "DBIRTH"})
_FORGETS = _BIRTHS | {"DDEATH"}
_QUALITIES = {0: "bad", 500: "stale"}
_NS_PER_MS = 10**6


class _Topic(NamedTuple):
    group: str
    verb: str
    node: str
    device: str


class _Place(NamedTuple):
    """Whose the metrics of a message are: the id of the node's device, ours, and how channels are named."""

    of: str
    device: str
    prefix: str
    names: Names

    def channel(self, metric: str) -> str:
        return self.names.channel(self.device, self.prefix + metric)


class _Born(NamedTuple):
    """A metric of a birth, what is to be known of it, and its channel; None: it is no reading."""

    metric: Metric
    known: Known
    channel: Channel | None


class Sparkplug:
    """The host application of one sender's nodes; see `hub.decode.base.Decoder`.

    Args:
        max_nodes: remembered; of more, those that were silent for longest are forgotten and asked for births again.
        max_metrics: remembered of all nodes together; fewer of a client that is one device.
    """

    __slots__ = ("_asked", "_asked_s", "_max_metrics", "_max_nodes", "_nodes", "_scope", "_size")
    name = "sparkplug"

    def __init__(self, scope: Scope, *, max_nodes: int = MAX_NODES, max_metrics: int = MAX_METRICS) -> None:
        self._scope = scope
        self._max_nodes = max_nodes
        self._max_metrics = min(max_metrics, MAX_METRICS_OF_DEVICE) if scope.device else max_metrics
        self._nodes: OrderedDict[tuple[str, str], Node] = OrderedDict()
        self._size = 0
        self._asked_s = self._asked = 0

    def decode(self, publication: Publication) -> Decoded | None:
        """Return the readings of a message, and the request for births when they are due."""
        return at_once(self.reading(publication))

    def reading(self, publication: Publication) -> Generator[None, None, Decoded | None]:
        """Do as `decode`, with pauses; another message may be read meanwhile."""
        segments = publication.topic.split("/")
        if segments[0] != PREFIX:
            return None
        if segments[1:2] == ["STATE"]:
            return Decoded(self.name, ignored="the state of a host application")
        topic = _topic(segments)
        if topic.verb in ("NCMD", "DCMD"):
            return Decoded(self.name, ignored="a command to a node, not a reading")
        if publication.is_retained:
            return Decoded(self.name, ignored="kept by the broker from before, which Sparkplug does not allow")
        payload = yield from parsing(publication.payload)
        if topic.verb == "NDEATH":
            return self._died(topic, payload)
        now_ns = publication.received_ns
        if topic.verb == "DDEATH":
            node = self._met(topic, payload, (), now_ns)
            return Decoded(self.name, (), self._ask(topic, node, now_ns), "a device of the node is gone")
        node, said, ignored = yield from self._read(topic, payload, now_ns)
        return Decoded(self.name, said, self._ask(topic, node, now_ns), ignored)

    def _met(self, topic: _Topic, payload: Payload, born: Sequence[_Born], now_ns: int) -> Node:
        """Return the node of any message, with what is known of it by now: between two pauses, for it is counted."""
        key = (topic.group, topic.node)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(max(1, self._max_metrics // _SHARE))
        self._nodes.move_to_end(key)
        before = len(node)
        if topic.verb == "NBIRTH":
            node.begin(payload.seq, _bd_seq(payload))
        else:
            node.saw(payload.seq, now_ns)
            if not node.is_born:
                node.want_births()
        if topic.verb in _FORGETS:
            node.forget(topic.device)
        for metric, known, _ in born:
            node.learn(metric.name, metric.alias, known)
        self._size += len(node) - before
        self._bound()
        return node

    def _read(
        self, topic: _Topic, payload: Payload, now_ns: int
    ) -> Generator[None, None, tuple[Node, tuple[Said, ...], str]]:
        """Return the node, what its metrics say, and why nothing."""
        place = self._place(topic)
        born = (yield from _births(place, payload)) if topic.verb in _BIRTHS else []
        node = self._met(topic, payload, born, now_ns)
        channels = tuple([one.channel for one in born if one.channel is not None])
        readings: list[ForeignReading] = []
        left_out: Counter[str] = Counter()
        for at, metric in enumerate(payload.metrics, 1):
            try:
                known = _known(node, place, metric)
                value = _value(metric, known.datatype) if known.channel else None
                if value is not None:
                    readings.append(ForeignReading(known.channel, value, _time_ns(metric, payload)))
            except UnfitError as error:
                left_out[str(error)] += 1
                if isinstance(error, MisfitError):
                    node.want_births()
            if at % STEP == 0:
                yield
        if readings or channels:
            return node, (Said(place.device, tuple(readings), channels),), "" if readings else _why(left_out)
        return node, (), _why(left_out)

    def _died(self, topic: _Topic, payload: Payload) -> Decoded:
        node = self._nodes.get((topic.group, topic.node))
        bd_seq = _bd_seq(payload)
        if node is not None:
            if node.is_born and None not in (node.bd_seq, bd_seq) and node.bd_seq != bd_seq:
                return Decoded(self.name, ignored="the death of an earlier session: the node lives in a later one")
            self._size -= len(node)
            node.end()
        return Decoded(self.name, ignored="the node is gone")

    def _place(self, topic: _Topic) -> _Place:
        own, of = self._scope.device, topic.device
        if own:
            # Of all its devices together.
            return _Place(of, own, f"{of}/" if of else "", self._scope.names)
        text = f"{topic.group}/{topic.node}/{of}" if of else f"{topic.group}/{topic.node}"
        # A birth lists all metrics of a device: their names must not hang on how much else was remembered before.
        return _Place(of, self._scope.names.device(text), "", Names())

    def _bound(self) -> None:
        """Forget the nodes that were silent for longest; the one that speaks is the last."""
        while len(self._nodes) > 1 and (len(self._nodes) > self._max_nodes or self._size > self._max_metrics):
            _, node = self._nodes.popitem(last=False)
            self._size -= len(node)

    def _ask(self, topic: _Topic, node: Node, now_ns: int) -> tuple[Answer, ...]:
        if not node.is_due(now_ns):
            return ()
        second = now_ns // 10**9
        if second != self._asked_s:
            self._asked_s, self._asked = second, 0
        if self._asked >= MAX_ASKED_PER_S:
            return ()
        self._asked += 1
        node.asked(now_ns)
        return (Answer(f"{PREFIX}/{topic.group}/NCMD/{topic.node}", rebirth(now_ns // _NS_PER_MS)),)


def host_state(host: str, is_online: bool, since_ms: int) -> Answer:
    """Return the state of the hub as a host application: what is published, and what is left as its will.

    Args:
        host: its id, without ``/``, ``+`` and ``#``.
        since_ms: when its connection began; the same in the will, for nodes take the newer of two.
    """
    if not host or any(sign in host for sign in "/+#"):
        raise ValueError(f"id of a host application {host!r}: it is one segment of a topic, without + and #")
    payload = json.dumps({"online": is_online, "timestamp": since_ms}, separators=(",", ":")).encode()
    return Answer(f"{PREFIX}/STATE/{host}", payload, qos=1, is_retained=True)


def _births(place: _Place, payload: Payload) -> Generator[None, None, list[_Born]]:
    """Return what a birth says of its metrics, with pauses."""
    born = []
    for at, metric in enumerate(payload.metrics, 1):
        if metric.name:
            born.append(_born(place, metric))
        if at % STEP == 0:
            yield
    return born


def _born(place: _Place, metric: Metric) -> _Born:
    """Return what a birth says of a metric."""
    kind = value_type(metric.datatype)
    if (kind is None and metric.datatype) or _is_control(metric.name):
        return _Born(metric, Known(place.of, "", metric.datatype), None)
    text = place.prefix + metric.name
    channel = place.channel(metric.name)
    unit = unit_code(metric.unit[:MAX_UNIT_CHARS]) if metric.unit else None
    told = Channel(channel, unit, kind, label=label_of(text) if text != channel else None)
    return _Born(metric, Known(place.of, channel, metric.datatype), told)


def _known(node: Node, place: _Place, metric: Metric) -> Known:
    """Return what a metric is.

    Raises:
        MisfitError: no birth has said so.
    """
    known = node.find(place.of, metric.name, metric.alias)
    if known is not None:
        if value_type(metric.datatype) not in (None, value_type(known.datatype)):
            raise MisfitError("a metric of another type than its birth said")
        # The type that came with the bits says best what they mean.
        return known._replace(datatype=metric.datatype) if metric.datatype else known
    if not metric.name:
        raise MisfitError("a metric by an alias that no birth has named yet")
    if _is_control(metric.name):
        return Known(place.of, "", 0)
    return Known(place.of, place.channel(metric.name), metric.datatype)


def _topic(segments: list[str]) -> _Topic:
    verb = segments[2] if len(segments) > 2 else ""
    if all(segments) and ((verb in _OF_NODE and len(segments) == 4) or (verb in _OF_DEVICE and len(segments) == 5)):
        return _Topic(segments[1], verb, segments[3], segments[4] if len(segments) == 5 else "")
    raise DecodeError("no topic of Sparkplug: spBv1.0/GROUP/NDATA/NODE, or spBv1.0/GROUP/DDATA/NODE/DEVICE")


def _bd_seq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == _BD_SEQ and metric.kind in ("int_value", "long_value"):
            return int(metric.raw)
    return None


def _is_control(name: str) -> bool:
    return name == _BD_SEQ or name.startswith(_CONTROLS)


def _value(metric: Metric, datatype: int) -> Value | None:
    """Return the value of a metric that is a reading; None: it has none.

    Raises:
        UnfitError: it is none; says why.
    """
    if metric.is_transient:
        raise UnfitError("transient, which is not meant for history")
    if metric.quality in _QUALITIES:
        raise UnfitError(f"of {_QUALITIES[metric.quality]} quality")
    value = value_of(metric, datatype)
    if type(value) is str and len(value) > MAX_STRING_BYTES // 4 and len(value.encode()) > MAX_STRING_BYTES:
        raise UnfitError(f"a text of more than {MAX_STRING_BYTES} bytes is no reading")
    return value


def _time_ns(metric: Metric, payload: Payload) -> int | None:
    """Return when it was so; None: when the message came, for the node's clock is not set."""
    time_ms = payload.time_ms if metric.time_ms is None else metric.time_ms
    time_ns = None if time_ms is None else since_epoch_ns(time_ms, _NS_PER_MS)
    if time_ns is None and metric.is_historical:
        raise UnfitError("from before, without a time")
    return time_ns


def _why(left_out: Counter[str]) -> str:
    if not left_out:
        return "no metric with a value"
    return "; ".join(f"{why} ({count})" if count > 1 else why for why, count in left_out.most_common(3))
