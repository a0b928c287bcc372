"""Device side of the telemetry hub: ``record()`` never waits, and each reading arrives once or is declared lost.

Owns: the public names. Nothing is imported until it is used: a program that
only names the package pays nothing, and a test pins that.
"""

# What type checkers take for true; `typing` itself would cost more than the rest of this file.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from device_sdk.client import Client
    from device_sdk.device import Device
    from device_sdk.discovery import FoundHub, discover
    from device_sdk.errors import (
        AuthenticationError,
        ConnectionLostError,
        FlushTimeoutError,
        MisuseError,
        ResetError,
        SpoolError,
        TelemetryError,
    )
    from device_sdk.gateway import Gateway
    from device_sdk.reading import Channel, Reading
    from device_sdk.recorder import ChannelRecorder
    from device_sdk.status import DeviceStatistics, Status
    from device_sdk.watch import WatchedReading

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "Channel",
    "ChannelRecorder",
    "Client",
    "ConnectionLostError",
    "Device",
    "DeviceStatistics",
    "FlushTimeoutError",
    "FoundHub",
    "Gateway",
    "MisuseError",
    "Reading",
    "ResetError",
    "SpoolError",
    "Status",
    "TelemetryError",
    "WatchedReading",
    "discover",
]

_HOMES = {
    "Channel": "device_sdk.reading",
    "ChannelRecorder": "device_sdk.recorder",
    "Client": "device_sdk.client",
    "Device": "device_sdk.device",
    "DeviceStatistics": "device_sdk.status",
    "FoundHub": "device_sdk.discovery",
    "Gateway": "device_sdk.gateway",
    "Reading": "device_sdk.reading",
    "Status": "device_sdk.status",
    "WatchedReading": "device_sdk.watch",
    "discover": "device_sdk.discovery",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'device_sdk' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES.get(name, "device_sdk.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
