"""A handler of MQTT connections that keeps what it is told, and stores when the test says so."""

from collections.abc import Callable, Sequence

from hub.mqtt.handler import Code, Connect, Done, Line, Received, Refused
from hub.mqtt.packet import MAX_PACKET_BYTES


class RecordingHandler:
    """Takes everything; acknowledges at once where ``is_prompt``, else the test calls ``waiting``.

    ``refusal``: what connecting clients are told; ``codes``: of filters that are not granted; ``has_room``: what
    `can_take` says; ``on_received`` is called with each publication.
    """

    def __init__(self, *, is_prompt: bool = True) -> None:
        self.is_prompt = is_prompt
        self.refusal: Refused | None = None
        self.codes: dict[str, Code] = {}
        self.has_room = True
        self.most_bytes = MAX_PACKET_BYTES
        self.connects: list[Connect] = []
        self.received: list[Received] = []
        self.times_ns: list[int] = []
        self.waiting: list[Done] = []
        self.ended: list[tuple[bool, str]] = []
        self.line: Line | None = None
        self.on_connect: Callable[[Line], None] = lambda line: None
        self.on_subscribe: Callable[[Sequence[str]], None] = lambda filters: None
        self.on_received: Callable[[Received], None] = lambda received: None

    def connect(self, connect: Connect, line: Line) -> Refused | None:
        """Keep both."""
        self.connects.append(connect)
        self.line = line
        self.on_connect(line)
        return self.refusal

    @property
    def who(self) -> str:
        """The user name."""
        return self.connects[-1].username or ""

    @property
    def max_packet_bytes(self) -> int:
        """What the test set."""
        return self.most_bytes

    def publish(self, received: Received, now_ns: int, done: Done) -> None:
        """Keep it."""
        self.received.append(received)
        self.times_ns.append(now_ns)
        self.on_received(received)
        if self.is_prompt:
            done(Code.SUCCESS)
        else:
            self.waiting.append(done)

    def subscribe(self, filters: Sequence[str]) -> Sequence[Code]:
        """Grant what ``codes`` does not refuse."""
        self.on_subscribe(filters)
        return [self.codes.get(name, Code.SUCCESS) for name in filters]

    def can_take(self) -> bool:
        """Say what the test set."""
        return self.has_room

    def closed(self, is_clean: bool, why: str) -> None:
        """Keep it."""
        self.ended.append((is_clean, why))

    def store(self, count: int | None = None) -> None:
        """Acknowledge the oldest ``count`` that wait, or all."""
        now, self.waiting = self.waiting[:count], [] if count is None else self.waiting[count:]
        for done in now:
            done(Code.SUCCESS)
