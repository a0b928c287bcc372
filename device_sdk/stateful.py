"""The part of `Device` about desired and reported state.

Owns: `desired`, `on_desired`, `report` as a program sees them. Place: base of `Device`. `twin`, which does the work, is
imported with the first use of one of them: most programs only record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from device_sdk.courier import Courier
from device_sdk.errors import MisuseError

if TYPE_CHECKING:
    from device_sdk.twin import DesiredState, Handler, Twin

_Handler = TypeVar("_Handler", bound="Handler")


class Stateful:
    """What `Device` adds: ``name``, and while it is open courier and loop."""

    name: str
    _closed_because: str
    _courier: Courier | None
    _loop: asyncio.AbstractEventLoop | None
    _twin: Twin | None = None

    @property
    def desired(self) -> DesiredState:
        """The state that the hub wants, as it was last known, also offline; after a restart with a spool on disk.

        Known from the opening of the device on.
        """
        return self._used_twin().desired

    def on_desired(self, handler: _Handler) -> _Handler:
        """Have a function called with the whole desired state when it differs from what it last handled.

        At once with the known state if that was never handled. A sync function is called in a worker thread, an
        async one (``async with`` only) as a task on the loop; one call at a time, the newest state counts. The
        hub is told that the device has taken the state in when the function returned; after an exception, which is
        logged, it is called again at the next connection or change.

        Raises:
            MisuseError: an async function while the device is open by ``with``.

        Example:
            >>> @device.on_desired
            ... def apply(state: dict) -> None:
            ...     fan.speed = state.get("speed", 0)
            ...     device.report(speed=fan.speed)
        """
        from inspect import iscoroutinefunction

        if iscoroutinefunction(handler) and getattr(self, "_thread", None) is not None:
            raise MisuseError(f"device {self.name} was opened by `with`: on_desired needs a plain function there")
        self._used_twin().handle(handler)
        return handler

    def report(self, values: Mapping[str, Any] | None = None, /, *, replace: bool = False, **named: Any) -> None:
        """Tell the hub what state the device has: now, or when it is connected again; the newest counts.

        Args:
            values: merged into what was reported before, as RFC 7396 says: objects are merged, None removes a key.
            replace: forget what was reported before.
            named: further keys.

        Raises:
            MisuseError: no JSON, or more than 32 KiB; or the device is not open. Nothing was changed.
            SpoolError: the disk failed; the hub is told all the same, but it is forgotten when the process ends.

        With a spool on disk it is on that, fsynced, when this returns: milliseconds. From any thread.
        """
        if self._courier is None:
            raise MisuseError(f"device {self.name} {self._closed_because}")
        self._used_twin().report({**(values or {}), **named}, replace=replace)

    def _twin_file(self) -> Path | None:
        """Return where the states are kept; None: in memory."""
        raise NotImplementedError

    def _used_twin(self) -> Twin:
        if self._twin is None:
            from device_sdk.twin import Twin

            self._twin = Twin(self.name, self._twin_file())
            if self._loop is not None:
                self._begin_twin()
        return self._twin

    def _begin_twin(self) -> None:
        """Go to work, if there is something to do: the device was opened."""
        twin, courier, loop = self._twin, self._courier, self._loop
        if twin is not None and courier is not None and loop is not None:
            twin.load()
            courier.controls.append(twin)
            twin.begin(loop, courier)

    def _end_twin(self) -> None:
        if self._twin is not None:
            self._twin.end()
