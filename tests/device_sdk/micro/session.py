"""A device that records 1, 2, 3, … into channel ``n`` at a real hub or broker, and says at its end what became of it.

    session.py NAME PORT TOKEN COUNT ROWS PACE LIMIT_S [CA]

PACE: ``gently`` waits for room in memory, and records three more channels; ``singly`` sends each reading by itself; a
number of ms is what passes between two readings, whatever becomes of them. After LIMIT_S at most it prints one line of
JSON and ends. CA: a file with the authority (DER) of a hub that is spoken to by TLS.
"""

import gc
import json
import sys

from micro import Device


class Session:
    """The device, and what happened to it."""

    def __init__(self, name: str, port: str, token: str, rows: str, pace: str) -> None:
        self.device = Device(
            name, "127.0.0.1", int(port), token=token, rows=int(rows), channels={"n": {"unit": "1"}},
            commands={"fan": {"args": {"speed": {"type": "int"}}}},
        )  # fmt: skip
        self.device.on_command = lambda name, args: args
        self.device.on_desired = lambda state: state
        self.pace = pace
        # How many rows may wait when the next is recorded.
        self.most = {"gently": 40, "singly": 0}.get(pace, int(rows))
        self.connections, self.why, self.free_bytes = 0, "", 1 << 30
        if pace == "singly":
            self.device.batch_ms = -(1 << 30)

    def turn(self) -> None:
        """Tick, and notice who came and went."""
        was_online = self.device.online
        self.device.tick()
        if self.device.online and not was_online:
            self.connections += 1
            if self.pace == "singly":
                # Else Nagle's algorithm lets each message wait 40 ms, which no device with a sensor would notice.
                self.device.sock.setsockopt(6, 1, 1)
        elif was_online and not self.device.online:
            self.why = self.device.why

    def record(self, n: int) -> None:
        """Record the next number, and let its time pass."""
        device = self.device
        due = device.uptime()
        if self.pace == "gently":
            device.record(n=n, temperature=20 + n / 7, humidity=44.5, door=n % 2 == 0)
        else:
            device.record("n", n)
            due += 0 if self.pace == "singly" else int(self.pace)
        self.turn()
        while device.uptime() < due or len(device.ring) > self.most:
            self.turn()
        if n % 500 == 0 and hasattr(gc, "mem_free"):
            gc.collect()
            self.free_bytes = min(self.free_bytes, gc.mem_free())

    def finish(self, limit_ms: int) -> None:
        """Wait until nothing is left to send."""
        device = self.device
        while (device.ring or device.cut or device.lost) and device.uptime() < limit_ms:
            self.turn()
            device.wait(0.002)

    def told(self) -> dict[str, object]:
        """Return what became of it."""
        device = self.device
        left = len(device.ring) + len(device.cut)
        return {
            "dropped": device.dropped, "left": left, "acked": device.acked, "pid": device.pid, "stream": device.stream,
            "connections": self.connections, "why": self.why, "free_bytes": self.free_bytes, "took_ms": device.uptime(),
        }  # fmt: skip


def secured_by(path: str) -> object:
    """Return what verifies a hub by this authority."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    with open(path, "rb") as file:
        context.load_verify_locations(cadata=file.read())
    return context


def main(name: str, port: str, token: str, count: str, rows: str, pace: str, limit_s: str, ca: str = "") -> None:
    """Record, wait until nothing is left to send, and tell."""
    session = Session(name, port, token, rows, pace)
    if ca:
        session.device.tls = secured_by(ca)
    for n in range(1, int(count) + 1):
        session.record(n)
    session.finish(int(limit_s) * 1000)
    session.device.close()
    print(json.dumps(session.told()))


if __name__ == "__main__":
    main(*sys.argv[1:])
