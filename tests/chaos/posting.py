"""kill -9 of the hub under devices that post by HTTP and send the same again until they are answered.

    python -m tests.chaos.posting --kills 200 --seed 7

prints one line of figures and exits with 0 when each value that was answered for is stored exactly once, and a request
that was sent again had the outcome that it would have had. Readings have no time of their own, so nothing but the
request's name, or the frame's number, keeps a second one out.
"""

import argparse
import http.client
import itertools
import json
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_sdk.columns import encode_json, to_columns
from hub.auth import Identities
from tests.support.hub_process import HubProcess

# Readings of a named request of lines: three parts, each a frame of its own.
LINES = 4_100
_RETRY_S = 0.02
_LIMIT_S = 60.0
_EARLY_S, _LATE_S = 0.05, 0.6


@dataclass
class Outcome:
    """What came of a run; ``wrong`` is empty when it is green."""

    kills: int = 0
    requests: int = 0
    again: int = 0
    readings: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def is_green(self) -> bool:
        """Whether nothing was lost or doubled."""
        return not self.wrong

    def __str__(self) -> str:
        return (
            f"kills={self.kills} requests={self.requests} sent_again={self.again} readings={self.readings} "
            f"wrong={self.wrong[:3]}"
        )


class Poster(threading.Thread):
    """One device that posts until it is told to end; each request again until it is answered."""

    def __init__(self, hub: HubProcess, device: str, token: str) -> None:
        super().__init__(name=device, daemon=True)
        self.device = device
        self.accepted: list[int] = []
        self.requests = self.again = 0
        self.wrong: list[str] = []
        self.is_ending = False
        self._hub = hub
        self._headers = {"Authorization": f"Bearer {token}"}
        self._values = itertools.count(1)

    def run(self) -> None:
        """Post."""
        for path, body, headers, values, expected in self.jobs():
            self.requests += 1
            answer = self._answered(path, body, {**self._headers, **headers})
            if answer is None or {key: answer.get(key) for key in expected} != expected:
                self.wrong.append(f"{self.device}: {str(answer)[:300]} instead of {expected}")
            self.accepted += values
            if self.is_ending or self.wrong:
                return

    def jobs(self) -> Iterator[tuple[str, bytes, dict[str, str], list[int], dict[str, Any]]]:
        """Yield path, body, headers, values that are stored then, and what is to be answered."""
        raise NotImplementedError

    def take(self, count: int) -> list[int]:
        """Return values that were not sent before."""
        return list(itertools.islice(self._values, count))

    def _answered(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        limit = time.monotonic() + _LIMIT_S
        while time.monotonic() < limit:
            connection = http.client.HTTPConnection("127.0.0.1", self._hub.port, timeout=20)
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                answer: dict[str, Any] = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                pass
            else:
                # 409 of a name: the request before this one is still on its way.
                if response.status not in (409, 503):
                    return answer if response.status == 200 else {"status": response.status, **answer}
            finally:
                connection.close()
            self.again += 1
            time.sleep(_RETRY_S)
        return None


class Named(Poster):
    """Small objects with a name, one value of which is refused."""

    def jobs(self) -> Iterator[tuple[str, bytes, dict[str, str], list[int], dict[str, Any]]]:
        """Yield."""
        while True:
            values = self.take(5)
            body = json.dumps([{"t": value} for value in values] + ([{"t": "x"}] if values[0] > 1 else [])).encode()
            rejected = int(values[0] > 1)
            headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(8)}
            yield "/v1/batches", body, headers, values, {"accepted": 5, "rejected": rejected}


class NamedLines(Poster):
    """Bodies of several parts: a kill may come between the commits of two."""

    def jobs(self) -> Iterator[tuple[str, bytes, dict[str, str], list[int], dict[str, Any]]]:
        """Yield."""
        while True:
            values = self.take(LINES)
            body = b"\n".join(b"m t=%di" % value for value in values)
            headers = {"Content-Type": "text/plain", "Idempotency-Key": secrets.token_hex(8)}
            yield "/v1/batches", body, headers, values, {"accepted": LINES, "rejected": 0}


class Frames(Poster):
    """Numbered frames, some of them sent again although they were answered."""

    def jobs(self) -> Iterator[tuple[str, bytes, dict[str, str], list[int], dict[str, Any]]]:
        """Yield."""
        path = f"/v1/batches?stream={secrets.token_hex(8)}"
        headers = {"Content-Type": "application/x-ndjson"}
        last = b""
        for seq in itertools.count(1, 2):
            bodies = [last] if last else []
            sent = []
            for number in (seq, seq + 1):
                values = self.take(3)
                # A frame that was stored twice would be told by the audit: its readings were superseded.
                rows = [("t", 1_700_000_000 * 10**9 + value, value) for value in values]
                bodies.append(encode_json(to_columns(number, rows)))
                sent += values
            last = bodies[-1]
            yield path, b"\n".join(bodies), headers, sent, {"stored": seq + 1, "rejected_total": 0}


def run(kills: int, seed: int, folder: Path) -> Outcome:
    """Kill the hub ``kills`` times, then compare what is stored with what was answered."""
    choice = random.Random(seed)
    outcome = Outcome()
    with HubProcess(folder / "data") as hub:
        identities = Identities(folder / "data" / "identities.sqlite3")
        kinds: dict[str, type[Poster]] = {"named-1": Named, "named-2": Named, "lines": NamedLines, "frames": Frames}
        posters = [kind(hub, device, identities.add_device(device)) for device, kind in kinds.items()]
        identities.close()
        for poster in posters:
            poster.start()
        for _ in range(kills):
            time.sleep(choice.uniform(_EARLY_S, _LATE_S))
            hub.kill()
            hub.start()
            outcome.kills += 1
        for poster in posters:
            poster.is_ending = True
        for poster in posters:
            poster.join(_LIMIT_S)
            outcome.wrong += poster.wrong or (["it hangs"] if poster.is_alive() else [])
            outcome.requests += poster.requests
            outcome.again += poster.again
            outcome.readings += len(poster.accepted)
            _compare(hub, poster, outcome)
        if not hub.get("/v1/audit")["balanced"]:
            outcome.wrong.append("the audit does not balance")
        hub.stop()
    return outcome


def _compare(hub: HubProcess, poster: Poster, outcome: Outcome) -> None:
    stored: list[int] = []
    page = ""
    while True:
        answer = hub.get(f"/v1/readings?match={poster.device}&from=0&limit=10000{page}")
        stored += [row[2] for row in answer["rows"]]
        if answer["next"] is None:
            break
        page = f"&page={answer['next']}"
    (told,) = hub.get(f"/v1/audit?device={poster.device}")["devices"]
    if (told["accepted"], told["superseded"]) != (len(poster.accepted), 0):
        outcome.wrong.append(f"{poster.device}: {told}")
    if sorted(stored) != poster.accepted:
        lost, more = set(poster.accepted) - set(stored), len(stored) - len(set(stored))
        outcome.wrong.append(
            f"{poster.device}: {len(stored)} stored of {len(poster.accepted)}, lost {len(lost)}, doubled {more}"
        )


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.posting", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        outcome = run(chosen.kills, seed, Path(temporary))
    print(f"posting seed={seed} {outcome}")
    return 0 if outcome.is_green else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
