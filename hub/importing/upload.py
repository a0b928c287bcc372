"""Frames of a file to a hub: only those that it has not stored, with the right to be killed at any time.

Owns: what is sent, what an answer says of lines, when it is tried again. Place: after `cutter`; the command line gives
it the way to the hub. Keeps nothing between runs: the first answer about a device says how far its stream is stored.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hub.errors import ConflictError, DiskFullError, HubError, UnavailableError
from hub.importing.cutter import MAX_SERIES, Cutter, Piece
from hub.importing.report import Report
from hub.importing.row import Blank, Items, Refused, RowError

# A request may weigh 1 MiB; readings so many that a slow hub answers within a second. Frames: while 200,000 readings of
# 20,000 devices came, a live device's ack took 84 ms (p90) with requests of 500, and 37 ms with requests of 100.
REQUEST_BYTES, REQUEST_FRAMES, REQUEST_READINGS = 800_000, 100, 10_000
# Of a frame and of a channel in it, as JSON, beside their names and the body.
_FRAME_BYTES, _CHANNEL_BYTES = 160, 220

Post = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass(slots=True)
class _Known:
    """What the hub had of a device when it was first asked, and how many readings it has refused since."""

    stored: int
    chain: str
    rejected: int


class Upload:
    """Sends one file.

    Args:
        post: sends frames and returns the answer of ``POST /v1/imports/{id}/frames``; raises `HubError`.
        wait: called before an attempt is repeated, with its error and how often that was; it pauses, or raises.
        report: is kept up to date.
        most_series: channels that a file may have, over all devices.
    """

    def __init__(
        self, post: Post, wait: Callable[[Exception, int], None], report: Report, most_series: int = MAX_SERIES
    ) -> None:
        self._cutter = Cutter(most_series)
        self._post = post
        self._wait = wait
        self._report = report
        self._known: dict[str, _Known] = {}

    def run(self, items: Items) -> Iterator[None]:
        """Send all readings of a file; yields after each row, so that somebody can show how far it is."""
        report, cutter = self._report, self._cutter
        for item in items:
            if isinstance(item, Blank):
                report.blank += 1
                continue
            report.read += 1
            if isinstance(item, Refused):
                report.refuse(item)
                continue
            try:
                cutter.add(item)
            except RowError as error:
                report.refuse(Refused(item.line, str(error), f"{item.device}/{item.channel}"))
            if cutter.is_full:
                self.send(cutter.take())
                yield
        self.send(cutter.take())

    def send(self, pieces: Sequence[Piece]) -> None:
        """Send what of these frames the hub may lack; return when all is stored."""
        # Looked at one by one: the answer to a request says what of the following ones is stored.
        for request in _requests(piece for piece in pieces if self._is_lacking(piece)):
            answer = self._ask([_frame_object(piece) for piece in request])
            self._note(request, answer)

    def _is_lacking(self, piece: Piece) -> bool:
        known = self._known.get(piece.device)
        if known is not None and piece.seq == known.stored:
            _check_chain(piece, known)
        return known is None or piece.seq > known.stored

    def _ask(self, frames: list[dict[str, Any]]) -> dict[str, Any]:
        attempt = 0
        while True:
            try:
                return self._post(frames)
            except HubError as error:
                # A conflict is the rest of an attempt whose answer was lost, or another import of the same file.
                if not isinstance(error, UnavailableError | ConflictError | DiskFullError):
                    raise
                attempt += 1
                self._wait(error, attempt)

    def _note(self, request: Sequence[Piece], answer: dict[str, Any]) -> None:
        report = self._report
        for before in answer["before"]:
            self._note_before(before)
        for kept in answer["units"]:
            report.keep_unit(f"{kept['device']}/{kept['channel']}", kept["unit"], kept["told"])
        sent = {}
        for piece in request:
            known = self._known[piece.device]
            if piece.seq == known.stored:
                _check_chain(piece, known)
            elif piece.seq > known.stored:
                report.stored += piece.readings
                sent[piece.device, piece.seq] = piece
        for refused in answer["refused"]:
            piece = sent[refused["device"], refused["seq"]]
            line = piece.lines[refused["channel"]][refused["index"]]
            report.stored -= 1
            self._known[piece.device].rejected += 1
            report.refuse(Refused(line, refused["reason"], f"{piece.device}/{refused['channel']}"))

    def _note_before(self, before: dict[str, Any]) -> None:
        report = self._report
        known = self._known.get(before["device"])
        if known is None:
            self._known[before["device"]] = _Known(before["stored"], before["chain"], before["rejected"])
            report.already += before["accepted"]
            report.refused_before += before["rejected"]
            report.refused += before["rejected"]
            return
        # An answer that was lost had named them; their frames are stored and are not checked again.
        lost = before["rejected"] - known.rejected
        known.rejected += lost
        report.refused_before += lost
        report.refused += lost
        report.stored -= lost


def _check_chain(piece: Piece, known: _Known) -> None:
    if piece.chain.hex() != known.chain:
        raise ConflictError(
            f"{piece.device}: the hub has stored other readings under this file's name; change one byte of the file, "
            "such as a blank line at its end, and import it anew"
        )


def _requests(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    request: list[Piece] = []
    size = readings = 0
    for piece in pieces:
        weight = _weight(piece)
        is_over = size + weight > REQUEST_BYTES or readings + piece.readings > REQUEST_READINGS
        if request and (is_over or len(request) == REQUEST_FRAMES):
            yield request
            request, size, readings = [], 0, 0
        request.append(piece)
        size += weight
        readings += piece.readings
    if request:
        yield request


def _weight(piece: Piece) -> int:
    return len(piece.body) * 4 // 3 + _FRAME_BYTES + _CHANNEL_BYTES * len(piece.channels)


def _frame_object(piece: Piece) -> dict[str, Any]:
    frame: dict[str, Any] = {"device": piece.device, "body": base64.b64encode(piece.body).decode()}
    if piece.channels:
        frame["channels"] = {
            name: {"unit": unit, "type": type_.value} if unit else {"type": type_.value}
            for name, (unit, type_) in piece.channels.items()
        }
    return frame
