"""WebSocket frames in and out: a fast path for the common frame in front of websockets' parser.

Owns: where each frame begins and ends, messages put together from fragments,
valid UTF-8 in text, the bytes of outgoing data frames. Place: inside
`hub.gateway.websocket`, below any handler. Pure: no clock, task or socket.

Theory of operation. *Every* frame is delimited here. A complete, unfragmented,
masked text or binary frame within the limit is unmasked and delivered at once;
every other complete frame (control, fragment, reserved bits) goes to
``ServerProtocol.receive_data`` alone, so close, ping, pong and errors stay the
library's. A header that is wrong by itself (unmasked, unknown opcode, oversize)
goes there with all that follows, for the library reads no further than it.
Handing "the rest of the buffer" over and taking it back when the library's
buffer is empty would be wrong: its parser has consumed a header already.
"""

from collections.abc import Callable

from websockets.frames import CONT, PONG, TEXT, CloseCode, Frame
from websockets.frames import apply_mask as _apply_mask  # type: ignore[attr-defined]  # C when it was built, else Python
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

# The first byte of an unfragmented data frame without reserved bits (RFC 6455, 5.2).
FINAL_TEXT = 0x81
FINAL_BINARY = 0x82
_MASK_BIT = 0x80
_OPCODES = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
PING_FRAME = b"\x89\x00"
# A close frame carries at most 125 bytes, 2 of them the code.
MAX_REASON_BYTES = 123

Deliver = Callable[[bytes, bool], None]


def text_frame(payload: bytes) -> bytes:
    """Return one unmasked, unfragmented text frame; ``payload`` must be valid UTF-8."""
    return _header(FINAL_TEXT, len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """Return one unmasked, unfragmented binary frame."""
    return _header(FINAL_BINARY, len(payload)) + payload


def ping_frame(payload: bytes) -> bytes:
    """Return a ping that its answer can be told by; at most 125 bytes."""
    return _header(PING_FRAME[0], len(payload)) + payload


def _header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126, size >> 8, size & 0xFF))
    return bytes((first, 127)) + size.to_bytes(8)


class FrameReader:
    """Bytes of one open connection in, messages and replies out.

    ``is_ended`` says that after what is in ``output`` this side sends no more. ``on_pong``, when set, is called with
    the payload of each pong.

    Args:
        protocol: a `ServerProtocol` whose handshake is done.
        deliver: called with (payload, is_text) for each message, in order, inside `feed`.
        max_bytes: largest message; must be the ``max_size`` of ``protocol``.
        output: replies of the library are appended here; the owner appends the handler's answers and writes it out.
    """

    __slots__ = ("_deliver", "_fragments", "_is_fast", "_is_text", "_max_bytes", "_need", "_output",
                 "_protocol", "_rest", "is_ended", "on_pong")  # fmt: skip

    def __init__(self, protocol: ServerProtocol, deliver: Deliver, max_bytes: int, output: list[bytes]) -> None:
        self._protocol = protocol
        self._deliver = deliver
        self._max_bytes = max_bytes
        self._output = output
        self._is_fast = not protocol.extensions
        self._rest: bytearray | None = None
        self._need = 0
        # One growing array, not a list: 6 bytes of empty fragment must not cost a list slot each, without end.
        self._fragments: bytearray | None = None
        self._is_text = False
        self.is_ended = False
        self.on_pong: Callable[[bytes], None] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the network; an exception of ``deliver`` passes through."""
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data, self._rest = bytes(self._rest), None
        at, end = 0, len(data)
        # Once this side has ended, whatever follows is read and forgotten (RFC 6455, 7.1.7).
        while at < end and not self.is_ended:
            at = self._fast_frames(data, at, end)
            if at < end:
                stop = self._next_stop(data, at, end)
                if stop == 0:
                    self._rest = bytearray(data[at:])
                    return
                self._slow_frame(data[at:stop])
                at = stop

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; from now on no message is delivered. Nothing when it began already."""
        self._is_fast = False
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, _short(reason))
            self._collect()

    def fail(self, code: int, reason: str) -> None:
        """Send a close frame if none was sent, and end this side at once."""
        self._is_fast = False
        self._protocol.fail(code, _short(reason))
        self._collect()

    def feed_end(self) -> None:
        """Note that the peer sends no more."""
        self._is_fast = False
        self._rest = None
        self._protocol.receive_eof()
        self._collect()

    # --- inside -------------------------------------------------------------------------------------

    def _fast_frames(self, data: bytes, at: int, end: int) -> int:
        """Deliver the plain data frames from ``at`` on; return where the first other or incomplete frame begins."""
        while self._is_fast and end - at >= 6:
            first = data[at]
            size = data[at + 1] - _MASK_BIT
            if size < 0 or (first != FINAL_TEXT and first != FINAL_BINARY):
                return at
            start = at + 6
            if size == 126:
                start = at + 8
                size = data[at + 2] << 8 | data[at + 3]
            elif size == 127:
                start = at + 14
                size = int.from_bytes(data[at + 2 : at + 10])
            stop = start + size
            # An extended length may itself be cut off; then `stop` lies behind `end` or `_next_stop` finds out.
            if start > end or stop > end or size > self._max_bytes:
                return at
            payload: bytes = _apply_mask(data[start:stop], data[start - 4 : start])
            at = stop
            if first == FINAL_TEXT:
                if not payload.isascii() and not self._is_utf8(payload):
                    return end
                self._deliver(payload, True)
            else:
                self._deliver(payload, False)
        return at

    def _next_stop(self, data: bytes, at: int, end: int) -> int:
        """Return where the frame at ``at`` ends; ``end`` when its header is fatal; 0 when it is not complete."""
        size = end - at
        if size < 2:
            self._need = 2
            return 0
        second = data[at + 1]
        if not second & _MASK_BIT or data[at] & 0x0F not in _OPCODES:
            return end
        length = second & 0x7F
        extended = 2 if length == 126 else 8 if length == 127 else 0
        if size < 2 + extended:
            self._need = 2 + extended
            return 0
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended])
        if length > self._max_bytes - (self._protocol.current_size or 0):
            return end
        self._need = 2 + extended + 4 + length
        return at + self._need if size >= self._need else 0

    def _slow_frame(self, frame: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(frame)
        self._collect()
        # Closing means one of us has said so: the handler hears no more messages.
        is_open = protocol.state is OPEN
        for event in protocol.events_received():
            if is_open:
                self._take(event)
        self._is_fast = protocol.state is OPEN and protocol.current_size is None and not protocol.extensions

    def _take(self, frame: Frame | Request | Response) -> None:
        """Put a message together from frames that the library has checked."""
        if not isinstance(frame, Frame) or frame.opcode > 2:
            if isinstance(frame, Frame) and frame.opcode is PONG and self.on_pong is not None:
                self.on_pong(bytes(frame.data))
            return
        if frame.opcode is not CONT:
            self._is_text = frame.opcode is TEXT
            self._fragments = bytearray()
        assert self._fragments is not None, "the library refuses a continuation without a beginning"
        self._fragments += frame.data
        if frame.fin:
            payload, self._fragments = bytes(self._fragments), None
            if not self._is_text or self._is_utf8(payload):
                self._deliver(payload, self._is_text)

    def _is_utf8(self, payload: bytes) -> bool:
        """Return whether the text is valid; else the connection has failed with 1007."""
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            self.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            return False
        return True

    def _collect(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._output.append(data)
            else:
                self.is_ended = True


def _short(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
