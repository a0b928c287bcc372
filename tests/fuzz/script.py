"""What one hostile connection sends, from the upgrade to its end, as a function of seed and number alone.

Owns: the mix of openings, messages and frames. That nothing depends on the hub's answers makes a run repeatable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from device_sdk.wire import DEVICE_PATH, DEVICE_SUBPROTOCOL, WATCH_PATH, WATCH_SUBPROTOCOL
from tests.fuzz import message
from tests.fuzz.frame import broken, framed, opening
from tests.support.raw_socket import CLOSE, FINAL, frame, upgrade

# Of 20 frames the hub takes some and ends the connection at another: longer scripts would mostly go unheard.
MAX_FRAMES = 25
# Offered in a quarter of the handshakes; the hub must not agree, or bombs would be inflated.
_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


@dataclass(frozen=True, slots=True)
class Script:
    """One connection: its opening, then its frames, of which the last is a proper close."""

    number: int
    opening: bytes
    frames: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """How many frames it counts for; an opening that is wrong counts for one."""
        return len(self.frames) or 1


def make_script(seed: int, number: int, tokens: Mapping[str, str]) -> Script:
    """Return connection ``number`` of a run.

    Args:
        tokens: devices that may be spoken for, with their tokens.
    """
    random = Random(f"{seed}/{number}")
    is_device = random.random() < 0.7
    device = random.choice(sorted(tokens))
    token = random.choice([*[tokens[device]] * 12, None, "nonsense", "d.\xff", tokens[device][:-1], "x" * 5000])
    if not is_device and token == tokens[device]:
        token = None
    headers = [_DEFLATE] if random.random() < 0.25 else []
    path, protocol = (DEVICE_PATH, DEVICE_SUBPROTOCOL) if is_device else (WATCH_PATH, WATCH_SUBPROTOCOL)
    head = upgrade(path, protocol, token=token, headers=headers)
    if random.random() < 0.1:
        return Script(number, opening(random, head), ())
    frames = _device_frames(random, device) if is_device else _watcher_frames(random)
    if random.random() < 0.5:
        frames.append(broken(random))
    frames.append(frame(b"\x03\xe8", FINAL | CLOSE))
    return Script(number, head, tuple(frames))


def _device_frames(random: Random, device: str) -> list[bytes]:
    frames = []
    if random.random() < 0.95:
        frames.append(framed(random, message.hello(random, device)))
    if random.random() < 0.95:
        frames.append(framed(random, message.schema()))
    seq = 1
    for _ in range(random.randint(1, MAX_FRAMES)):
        frames.append(framed(random, message.device_message(random, seq)))
        if random.random() < 0.7:
            # Whatever was made of the frame above, this number is taken now.
            frames.append(framed(random, message.valid_batch(random, seq)))
            seq += random.choice((1, 1, 1, 1, 1, 1, 0, 2))
    return frames


def _watcher_frames(random: Random) -> list[bytes]:
    return [framed(random, message.watcher_message(random, number)) for number in range(random.randint(1, MAX_FRAMES))]
