"""Who may import whom, beyond the layers that import-linter checks (`[tool.importlinter]` in pyproject.toml)."""

import pytest

from tests.architecture.source import Module, imported_names, modules, offenders, source_modules

_SDK_FOR_HUB = {
    "device_sdk.columns",
    "device_sdk.envelope",
    "device_sdk.errors",
    "device_sdk.merge_patch",
    "device_sdk.reading",
    "device_sdk.wire",
}
# `columns` and `wire` are the frame format; the rest of the SDK is private to it.
_SDK_FOR_SIMULATORS = {"device_sdk", *_SDK_FOR_HUB}

# A third-party package that only these modules may import: a heavy or replaceable one stays behind one door.
_DOORS = {
    "websockets": {
        "device_sdk.client",
        "device_sdk.websocket",
        "hub.gateway.frames",
        "hub.gateway.handshake",
        "hub.gateway.websocket",
    },
    "uvicorn": {"hub.gateway.handshake", "hub.gateway.websocket", "hub.server"},
    "starlette": {"hub.gateway", "hub.server"},
    "pydantic": {
        "hub.command_arguments",
        "hub.config",
        "hub.device_message",
        "hub.validate",
        "hub.gateway",
        "hub.live.message",
        "hub.live.outgoing",
        "hub.mqtt.compact",
    },
    "pydantic_settings": {"hub.config"},
    "cryptography": {"hub.tls"},
    "typer": {"hub.cli"},
    "psutil": {"hub.announcement", "simulators.host"},
    "zeroconf": {"device_sdk.discovery", "hub.announcement"},
    "aiomqtt": {
        "device_sdk.mqtt",
        "hub.gateway.home_assistant_link",
        "hub.gateway.mqtt_bridge",
        "hub.gateway.mqtt_broker",
    },
    "paho": {"device_sdk.mqtt", "hub.gateway.mqtt_bridge"},
    "argon2": {"hub.passwords"},
    "segno": {"hub.cli.qr"},
    "numpy": {"hub.store"},
    "pcodec": {"hub.store.chunk"},
    "prometheus_client": {"hub.gateway.metrics"},
    "influxdb_client": {"hub.store.influx"},
    "aiohttp": {"hub.store.influx"},
    "socketio": {"hub.gateway.socket_io"},
    "google": {"hub.decode.sparkplug_payload"},
    "pandas": {"device_sdk.rows"},
    "polars": {"device_sdk.rows"},
    "pyarrow": {"device_sdk.rows", "hub.gateway.arrow", "hub.importing.parquet"},
    "sqlite3": {
        "hub.auth",
        "hub.backup",
        "hub.change_log",
        "hub.event_log",
        "hub.children",
        "hub.claims",
        "hub.cli.source",
        "hub.credential",
        "hub.command_file",
        "hub.database",
        "hub.device_tokens",
        "hub.identity_file",
        "hub.journal",
        "hub.desired",
        "hub.metadata",
        "hub.renewal",
        "hub.revocations",
        "hub.store",
        "hub.users",
    },
}


def _is_below(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _sdk_modules_used(module: Module) -> set[str]:
    known = {m.name for m in modules("device_sdk")}
    return {name for name in imported_names(module) if name in known and not _is_package_of_another(name, module)}


def _is_package_of_another(name: str, module: Module) -> bool:
    # `from device_sdk import wire` names the package and the module: the module is what counts.
    return name == "device_sdk" and any(other.startswith("device_sdk.") for other in imported_names(module))


def test_hub_uses_only_the_shared_part_of_the_sdk() -> None:
    """The hub imports `wire`, `columns`, `reading`, `merge_patch` and `errors`; `hub.cli` may use anything public."""

    def further(module: Module) -> set[str]:
        allowed = _SDK_FOR_SIMULATORS if _is_below(module.name, {"hub.cli"}) else _SDK_FOR_HUB
        return set(_sdk_modules_used(module)) - allowed

    assert offenders(modules("hub"), further) == {}


def test_simulators_use_the_sdk_as_users_do() -> None:
    """Simulators prove the public SDK: no session, spool or transport from inside."""
    assert offenders(modules("simulators"), lambda m: set(_sdk_modules_used(m)) - _SDK_FOR_SIMULATORS) == {}


@pytest.mark.parametrize("package", sorted(_DOORS))
def test_package_is_imported_behind_its_door_only(package: str) -> None:
    """Each of these packages is imported by the modules named in `_DOORS` and no other."""
    users = {m.name for m in source_modules() if _is_below_any(imported_names(m), package)}

    assert {user for user in users if not _is_below(user, _DOORS[package])} == set()


def _is_below_any(names: frozenset[str], package: str) -> bool:
    return any(_is_below(name, {package}) for name in names)
