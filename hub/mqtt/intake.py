"""Foreign publications of one client: what its decoders read of them, for whom the client may speak.

Owns: whose a reading is; what is given again because nothing could be stored. Place: after `clients`, before `client`;
the readings go to `hub.foreign`. Pure. Must not: know a format.

A device's credential speaks for one device, so every reading is that device's, whatever the topic calls it. A gateway's
speaks for those that were accepted behind it; what it says of others is counted and forgotten, and PUBACK leaves all
the same: one device that nobody has accepted must not hold up the others. What could not be stored is given again until
it is, also when its connection has ended meanwhile; of QoS 0 it is lost, and counted.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from device_sdk.reading import Channel
from device_sdk.wire import MAX_FRAME_BYTES
from hub.child_book import Asked
from hub.child_sessions import MAX_CHILDREN
from hub.decode.base import TOO_LARGE, Answer, Decoded, DecodeError, ForeignReading, Publication, Said
from hub.decode.esphome import ONLINE
from hub.errors import HubError, UnavailableError
from hub.mqtt.clients import Clients, key_of
from hub.mqtt.handler import Code, Done
from hub.roles import Identity, Role, Verb

_log = logging.getLogger("hub.mqtt")

# The disk is full, the store is behind: both last for longer.
RETRY_S = 2.0
# How long an accepted device is taken without asking whether it was enrolled by itself meanwhile, which takes a look
# into a file. What a person decides counts at once.
ADMITTED_NS = 5 * 10**9
# What a gateway says of a device that it does not hear any more.
_GONE = (ONLINE, False)
# About a millisecond of line protocol or SenML; a larger payload is read in steps.
LARGE_BYTES = 4 * 1024


class Giver(Protocol):
    """Whose publications they are (`hub.mqtt.client`, `hub.mqtt.relay`)."""

    def answer(self, answer: Answer) -> None:
        """Say what a publication asked for."""

    @property
    def go_on(self) -> Callable[[], None]:
        """What is called when nothing is in steps any more: what was held may come."""

    def end(self, code: Code, why: str) -> None:
        """End the connection."""


class Intake:
    """Foreign publications of one client.

    A large one is read in steps (`hub.mqtt.steps`), also when its connection ends meanwhile. What comes behind it, by
    whichever connection of its identity, waits until it is through: whoever reads the client should take nothing more
    of it while there is something ``in_steps``.

    Args:
        client: the client's name in the log.
    """

    def __init__(self, clients: Clients, identity: Identity, client: str, giver: Giver) -> None:
        self._clients = clients
        self._giver = giver
        # Publications that are being read in steps, and those that wait behind them.
        self.in_steps = 0
        self._identity = identity
        self._whose = key_of(identity)
        self._under_way = clients.steps.under_way
        self._client = client
        self._is_gateway = identity.role is Role.GATEWAY
        self._decoders = clients.decoders(identity, is_gateway=self._is_gateway)
        self._carrier = clients.carrier(identity) if self._is_gateway else None
        # When a device behind this gateway was admitted, and those of which something was not taken.
        self._admitted: dict[str, int] = {}
        self._unheard: set[str] = set()

    def take(self, publication: Publication, qos: int, done: Done) -> None:
        """Take one publication."""
        if len(publication.payload) > LARGE_BYTES or (self._under_way and self._whose in self._under_way):
            self._begin(publication, qos, done)
            return
        said: Sequence[Said] | str
        try:
            decoded = self._decoders.decode(publication)
            said = self._as_gateway(decoded) if self._is_gateway else self._as_device(decoded)
        except Exception as error:
            self._unread(publication, error, qos, done)
            return
        if isinstance(said, str):
            self._aside(publication, said, qos, done)
        elif said:
            self._give(said, publication, qos, done)
        else:
            done(Code.SUCCESS)
        for answer in decoded.answers:
            self._giver.answer(answer)

    # --- in steps -------------------------------------------------------------------------------------------

    def _begin(self, publication: Publication, qos: int, done: Done) -> None:
        """Take a publication from the next turn on, behind what is in steps already."""
        self.in_steps += 1
        self._clients.figures.waiting += 1
        self._clients.figures.waiting_bytes += len(publication.payload)
        self._clients.steps.add(self._whose, self._until_through(publication, qos, done))

    def _until_through(self, publication: Publication, qos: int, done: Done) -> Iterator[None]:
        try:
            yield from self._taking(publication, qos, done)
        except Exception:  # the outer edge: whatever comes behind it must not wait for ever
            _log.exception("large message failed client=%s topic=%r", self._client, publication.topic[:200])
            self._giver.end(Code.UNSPECIFIED, "the hub failed; its log says why")
        self._clients.figures.waiting -= 1
        self._clients.figures.waiting_bytes -= len(publication.payload)
        self.in_steps -= 1
        if not self.in_steps:
            self._giver.go_on()

    def _taking(self, publication: Publication, qos: int, done: Done) -> Iterator[None]:
        """Do as `take`."""
        try:
            decoded, said = yield from self._reading(publication)
        except Exception as error:
            self._unread(publication, error, qos, done)
            return
        if isinstance(said, str):
            self._aside(publication, said, qos, done)
        elif said:
            each = done if len(said) == 1 else _Last(len(said), done)
            size = len(publication.payload) // len(said)
            for part in said:
                _Giving(self._clients, self._identity.namespace, part, publication, qos, each, size).give()
                yield
        else:
            done(Code.SUCCESS)
        for answer in decoded.answers:
            self._giver.answer(answer)

    def _reading(self, publication: Publication) -> Generator[None, None, tuple[Decoded, Sequence[Said] | str]]:
        """Return what a publication says, and what of it is to be given, or why nothing is."""
        decoded = yield from self._decoders.reading(publication)
        if len(publication.payload) > MAX_FRAME_BYTES and any(one.readings for one in decoded.said):
            for one in decoded.said:
                self._unheard_of(one.device)
            return decoded, TOO_LARGE
        if not self._is_gateway:
            return decoded, self._as_device(decoded)
        said = []
        for one in decoded.said:
            said += self._as_gateway(Decoded(decoded.decoder, (one,)))
            yield
        return decoded, said

    # --- whose it is, and where it goes -----------------------------------------------------------------------

    def _unread(self, publication: Publication, error: Exception, qos: int, done: Done) -> None:
        """Put aside what cannot be read, or what the hub fails at: else it is given again, and all behind it waits."""
        why = str(error)
        if not isinstance(error, DecodeError):
            _log.error("message failed client=%s topic=%r", self._client, publication.topic[:200], exc_info=error)
            why = f"the hub failed at it: {error!r}"
        if publication.is_retained:
            done(Code.SUCCESS)  # it comes again with each subscription
        else:
            self._aside(publication, why, qos, done)

    def _as_device(self, decoded: Decoded) -> Sequence[Said] | str:
        """Return everything as of the one device, or why not."""
        name = self._identity.name
        if len(decoded.said) == 1 and decoded.said[0].device == name:
            return decoded.said  # nearly always
        names = {said.device for said in decoded.said if said.readings}
        if len(names) > 1:
            few = ", ".join(sorted(names)[:3])
            return f"it speaks of {len(names)} devices ({few}): that needs a gateway credential"
        if not names:
            # What is said of channels alone: lists of many devices are not this device's.
            return [said._replace(device=name) for said in decoded.said] if len(decoded.said) == 1 else []
        readings: list[ForeignReading] = []
        channels: list[Channel] = []
        for said in decoded.said:
            if said.device in names:
                readings += said.readings
                channels += said.channels
        return [Said(name, tuple(readings), tuple(channels))]

    def _as_gateway(self, decoded: Decoded) -> list[Said]:
        """Return what is said of devices that may speak."""
        try:
            return self._accepted(decoded)
        except Exception:
            for said in decoded.said:
                self._unheard_of(said.device)
            raise

    def _accepted(self, decoded: Decoded) -> list[Said]:
        taken = []
        for said in decoded.said:
            if not said.readings:
                # An announcement lists every lamp and repeater: only what measures is to be decided over.
                if self._clients.parts.admission.is_accepted(
                    self._identity.namespace, self._identity.name, said.device
                ):
                    taken.append(said)
                else:
                    self._unheard_of(said.device)
                continue
            why = self._why_not(said.device)
            if why:
                self._clients.figures.not_taken[why] += 1
                self._unheard_of(said.device)
                continue
            if said.device in self._unheard:
                self._unheard.discard(said.device)
                said = said._replace(channels=(*self._decoders.channels_of(said.device), *said.channels))
            state = self._clients.parts.registry.device(self._identity.namespace, said.device)
            is_alone = state.connections > 0 or _GONE in [reading[:2] for reading in said.readings]
            state.carrier = None if is_alone else self._carrier
            taken.append(said)
        return taken

    def _why_not(self, device: str) -> str:
        """Return why a device behind this gateway may not speak, in a word; empty: it may."""
        identity, admission = self._identity, self._clients.parts.admission
        now_ns = self._clients.parts.clock()
        if now_ns - self._admitted.get(device, 0) < ADMITTED_NS and admission.is_accepted(
            identity.namespace, identity.name, device
        ):
            return ""
        try:
            refusal = admission.admit(Asked(identity.namespace, identity.name, identity.patterns(Verb.WRITE), device))
        except UnavailableError as error:
            _log.warning("child not decided gateway=%s device=%s reason=%s", identity.name, device[:64], error)
            return "unavailable"
        if refusal is not None:
            _log.debug("not taken gateway=%s device=%s reason=%s", identity.name, device[:64], refusal.reason)
            return str(refusal.reason)
        if len(self._admitted) >= MAX_CHILDREN:
            self._admitted.clear()
        self._admitted[device] = now_ns
        return ""

    def _unheard_of(self, device: str) -> None:
        if len(self._unheard) >= MAX_CHILDREN:
            self._unheard.clear()
        self._unheard.add(device)

    def _give(self, said: Sequence[Said], publication: Publication, qos: int, done: Done) -> None:
        """Give each part until it is stored; then tell."""
        clients, namespace, size = self._clients, self._identity.namespace, len(publication.payload) // len(said)
        if len(said) > 1:
            done = _Last(len(said), done)
        for part in said:
            _Giving(clients, namespace, part, publication, qos, done, size).give()

    def _aside(self, publication: Publication, reason: str, qos: int, done: Done) -> None:
        """Put a message into quarantine, until it is there; then tell."""
        identity = self._identity
        _log.debug("quarantine client=%s topic=%r reason=%s", self._client, publication.topic[:200], reason)
        self._clients.figures.quarantined += 1
        part, size = Said(identity.name), len(publication.payload)
        _Giving(self._clients, identity.namespace, part, publication, qos, done, size, reason).give()


class _Giving:
    """What a publication says of one device, on its way to the journal; called when that took it, or did not.

    Args:
        size: its share of the payload's bytes.
        reason: why it is put into quarantine, else None: a decoder may fail without a word.
    """

    __slots__ = ("_clients", "_done", "_namespace", "_publication", "_qos", "_reason", "_said", "_size")

    def __init__(
        self, clients: Clients, namespace: str, said: Said, publication: Publication, qos: int, done: Done, size: int,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        self._clients = clients
        self._namespace = namespace
        self._said = said
        self._publication = publication
        self._qos = qos
        self._done = done
        self._size = size
        self._reason = reason
        clients.figures.waiting += 1
        clients.figures.waiting_bytes += size

    def give(self) -> None:
        """Give it, as long as anything can be stored."""
        parts = self._clients.parts
        if not parts.can_take():
            self(UnavailableError("the hub stores nothing now"))
        elif self._reason is not None:
            parts.foreign.quarantine(self._namespace, self._said.device, self._publication, self._reason, self)
        else:
            try:
                parts.foreign.take(self._namespace, self._said, self._publication, self)
            except Exception as error:
                _log.exception("message failed device=%s", self._said.device)
                self._clients.figures.quarantined += 1
                self._reason = f"the hub failed at it: {error!r}"
                self.give()

    def __call__(self, error: HubError | None) -> None:
        """Take what became of it (`hub.foreign.Done`)."""
        figures = self._clients.figures
        if error is not None:
            if self._qos:
                figures.again += 1
                figures.again_bytes += self._size
                self._clients.parts.later(RETRY_S, self._again)
                return
            figures.lost += 1
        figures.waiting -= 1
        figures.waiting_bytes -= self._size
        self._done(Code.SUCCESS)

    def _again(self) -> None:
        figures = self._clients.figures
        figures.again -= 1
        figures.again_bytes -= self._size
        if not self._clients.is_stopped:
            self.give()
        else:
            # Nobody waits for it any more: it has no PUBACK, so it is sent to the next hub.
            figures.waiting -= 1
            figures.waiting_bytes -= self._size


class _Last:
    """Passes on the last of so many calls: that of a publication whose parts are all stored."""

    __slots__ = ("_count", "_done")

    def __init__(self, count: int, done: Done) -> None:
        self._count = count
        self._done = done

    def __call__(self, code: Code) -> None:
        self._count -= 1
        if not self._count:
            self._done(code)
