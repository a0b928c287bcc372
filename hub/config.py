"""The hub's settings: one table, four places they may come from.

Owns: every setting with its default, limits and help text, and the order
flag > environment ``HUB_*`` > ``hub.toml`` > default. Place: after `errors`.
Must not: be imported by ``hub --help`` (pydantic-settings costs 170 ms).
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from hub.errors import ConfigError

ENV_PREFIX = "HUB_"
DEFAULT_FILE = Path("hub.toml")
FOR_EVER, _ONE_WORD = "for ever", "for-ever"
# A hub with two devices and its empty files is at a tenth of it.
LEAST_BUDGET = 16 * 1024**2
_HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


def age_ns(age: str) -> int | None:
    """Return nanoseconds of ``12h``, ``30d``, ``8w``, ``5y`` (of 365 days); None of ``for ever``.

    Raises:
        ValueError: anything else, or less than an hour.
    """
    if age == FOR_EVER:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([hdwy])", age)
    if match is None or not int(match[1]):
        raise ValueError(f"use a whole number with h, d, w or y, e.g. 30d, or {FOR_EVER!r}")
    return int(match[1]) * _HOURS[match[2]] * 3600 * 10**9


def _check_age(age: str) -> str:
    age_ns(age)
    return age


Age = Annotated[str, AfterValidator(_check_age)]


class Policy(BaseModel):
    """How long readings of some series are kept, and their sums."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Annotated[str, Field(min_length=1)]
    raw: Age
    rollups: Age = FOR_EVER

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: object) -> object:
        """Take the words of a flag, ``lab-*/vibration 7d 5y``, for the table of a file."""
        if not isinstance(given, str):
            return given
        match, _, rest = given.replace(FOR_EVER, _ONE_WORD).partition(" ")
        ages = [word.replace(_ONE_WORD, FOR_EVER) for word in rest.split()]
        if len(ages) not in (1, 2):
            raise ValueError("use PATTERN RAW [ROLLUPS], e.g. 'lab-*/vibration 7d 5y'")
        return {"match": match, **dict(zip(("raw", "rollups"), ages, strict=False))}


def _origin(text: str) -> str:
    """Return an origin as browsers write it."""
    if not re.fullmatch(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", text):
        raise ValueError(
            "an origin is SCHEME://HOST[:PORT] in small letters, e.g. https://panel.example; no path, no *"
        )
    return text


def _zone(name: str) -> str:
    """Return the name of a zone that is known here."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError("a zone is named as in Europe/Berlin, or UTC") from error
    return name


def _one_line(secret: SecretStr) -> SecretStr:
    """Return a token without the line end of the file it comes from."""
    text = secret.get_secret_value().strip()
    if not text.isprintable():
        raise ValueError("a token is one line of printable characters")
    return SecretStr(text)


class Config(BaseSettings):
    """All settings of one hub, checked and frozen.

    ``Config(port=0)`` takes what it is given and defaults for the rest; only
    `load_config` looks at the environment and the file.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    data: Path = Field(default=Path("hub-data"), description="Folder of the hub's files; made when absent.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; beyond this machine it needs TLS.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port for everything; 0 takes a free one."
    )
    mqtt_port: Annotated[int, Field(ge=0, le=65535)] | Literal["off"] | None = Field(
        default=None, description="Port for MQTT; by default 1883 (TLS: 8883) on loopback, if it is free; or off."
    )
    mqtt_prefix: Annotated[str, Field(pattern=r"^[\w.~-]+(/[\w.~-]+){0,7}$", max_length=100)] = Field(
        default="hub/v1", description="How the hub's own MQTT topics begin: PREFIX/DEVICE/up."
    )
    mqtt_url: Annotated[SecretStr, AfterValidator(_one_line)] = Field(
        default=SecretStr(""),
        description="A broker to take messages from: mqtts://USER:PASSWORD@HOST; as $HUB_MQTT_URL (extra `mqtt`).",
    )
    mqtt_ca: Path | None = Field(
        default=None, description="Authority (PEM) that the broker's certificate is checked against."
    )
    mqtt_topic: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(
        default=["#"], description="Topics to take from the broker beside the hub's own, e.g. 'zigbee2mqtt/#'; all."
    )
    mqtt_group: Annotated[str, Field(pattern=r"^[\w.-]{0,64}$")] = Field(
        default="", description="Share those topics with the other hubs of this group: each message goes to one."
    )
    ha_discovery: Annotated[SecretStr, AfterValidator(_one_line)] = Field(
        default=SecretStr(""),
        description="Home Assistant's broker, where the hub's devices are announced: mqtt://USER:PASSWORD@HOST; as "
        "$HUB_HA_DISCOVERY (extra `mqtt`).",
    )
    tls_cert: Path | None = Field(default=None, description="Certificate chain (PEM); `hub tls init` makes one.")
    tls_key: Path | None = Field(default=None, description="Private key (PEM) of the certificate.")
    tls_client_ca: Path | None = Field(
        default=None, description="Authority (PEM) whose certificates let devices in without a token."
    )
    insecure_lan: bool = Field(
        default=False, description="Listen beyond this machine without TLS: tokens travel readable."
    )
    allow_origin: list[Annotated[str, AfterValidator(_origin)]] = Field(
        default=[], description="Let web pages of another origin ask this hub, e.g. https://panel.example."
    )
    announce: bool = Field(default=False, description="Announce the hub in its network by mDNS (extra `discovery`).")
    socketio: bool = Field(default=False, description="Let Socket.IO clients watch, at /socket.io (extra `socketio`).")
    demo: bool = Field(default=False, description="Run 200 simulated devices and this machine as a device.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    store: Annotated[str, Field(pattern=r"^(columns|rows|(influxdb2?|victoriametrics)\+https?://.+)$")] | None = Field(
        default=None,
        description="Where readings are: rows, columns (smaller; no way back), or a server: "
        "influxdb+http://…, influxdb2+http://…, victoriametrics+http://…",
    )
    store_token: Annotated[SecretStr, AfterValidator(_one_line)] = Field(
        default=SecretStr(""), description="Token of the store's server, or USER:PASSWORD; by $HUB_STORE_TOKEN."
    )
    keep_raw: Age | None = Field(
        default=None,
        description="Age up to which single readings are kept, e.g. 30d or 'for ever'; by default 30d in new folders.",
    )
    keep_rollups: Age = Field(
        default="for ever", description="How long sums of dropped readings by minute and hour are kept, e.g. 5y."
    )
    retention: list[Policy] = Field(
        default=[],
        description="Other times for some series: 'PATTERN RAW [ROLLUPS]'; the first that matches counts.",
    )
    disk_budget: Annotated[ByteSize, Field(ge=LEAST_BUDGET)] | None = Field(
        default=None,
        description="Bytes that journal and readings may take, e.g. 20GB; beyond it the oldest readings go early.",
    )
    hook: list[str] = Field(
        default=[],
        description="Hooks that say what people may see and what devices send: MODULE:NAME, or an entry point's name.",
    )
    decoder: list[str] = Field(
        default=[],
        description="Decoders for more kinds of devices, asked before ours: MODULE:NAME, or an entry point's name.",
    )
    device_zone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None, description="Zone of devices that send local times without one, e.g. Europe/Berlin."
    )
    journal_hours: Annotated[float, Field(ge=0)] = Field(
        default=24.0, description="Hours the journal keeps frames for watchers to resume from."
    )
    journal_bytes: Annotated[ByteSize, Field(ge=0)] = Field(
        default=ByteSize(1024**3), description="Bytes the journal keeps at most, e.g. 1GiB."
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: object, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what the constructor is given; `load_config` asks the other sources itself, for their names."""
        return (init_settings,)

    @property
    def is_tls(self) -> bool:
        """Tell whether the port speaks TLS."""
        return self.tls_cert is not None

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach the port."""
        return is_loopback(self.host)

    @property
    def journal_limit(self) -> int:
        """Bytes that the journal keeps: of a disk budget no more than half."""
        if self.disk_budget is None:
            return self.journal_bytes
        return min(self.journal_bytes, self.disk_budget // 2)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key") if self.tls_cert is not None else ("--tls-key", "--tls-cert")
            raise ConfigError(f"{given} needs {missing}; `hub tls init` makes both")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key; `hub tls init` makes all three")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca):
            if path is not None and not path.is_file():
                raise ConfigError(f"{path}: no such file; `hub tls init` makes a certificate and its key")
        if not (self.is_loopback or self.is_tls or self.insecure_lan):
            raise ConfigError(
                f"host {self.host!r} is reachable from other machines and there is no TLS. Make a certificate with "
                "`hub tls init` and give it with --tls-cert and --tls-key; or stay on this machine with "
                "--host 127.0.0.1; or, on a network you trust, say --insecure-lan (tokens travel readable)"
            )
        return self


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration and where each value came from: ``--flag``, ``$HUB_X``, a file, or ``default``."""

    config: Config
    origins: dict[str, str]


def load_config(flags: Mapping[str, object], file: Path | None = None) -> LoadedConfig:
    """Return the settings in the order flag > environment > file > default.

    Args:
        flags: values given on the command line; None counts as not given.
        file: a TOML file that must exist; None reads ``$HUB_CONFIG``, else ``./hub.toml`` when there is one.

    Raises:
        ConfigError: a value is wrong or unknown; says which, from where, and what it may be.
    """
    path = _find_file(file)
    values: dict[str, object] = {}
    origins = dict.fromkeys(Config.model_fields, "default")
    for name, value in _file_values(path).items():
        values[name] = value
        origins[name] = str(path)
    for name, value in _environment_values().items():
        values[name] = value
        origins[name] = f"${ENV_PREFIX}{name.upper()}"
    for name, flag in flags.items():
        if flag is not None:
            values[name] = flag
            origins[name] = "--" + name.replace("_", "-")
    try:
        return LoadedConfig(Config.model_validate(values), origins)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine only."""
    if host.lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _find_file(file: Path | None) -> Path | None:
    if file is None and (named := os.environ.get(f"{ENV_PREFIX}CONFIG")):
        file = Path(named)
    if file is not None:
        if not file.is_file():
            raise ConfigError(f"{file}: no such settings file; leave --config away to use defaults")
        return file
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _file_values(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        return dict(TomlConfigSettingsSource(Config, toml_file=path).toml_data)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _environment_values() -> dict[str, object]:
    try:
        return EnvSettingsSource(Config, env_prefix=ENV_PREFIX, env_ignore_empty=True)()
    except SettingsError as error:
        raise ConfigError(
            f"{error}: a list is JSON in a variable, e.g. {ENV_PREFIX}RETENTION='[\"lab-*/vibration 7d 5y\"]'"
        ) from error


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        origin = origins.get(name, "?")
        if len(problem["loc"]) > 1 and problem["type"] in ("extra_forbidden", "missing"):
            # Of a table of a file: in TOML all that follows [[retention]] is of it.
            what = "is not one of" if problem["type"] == "extra_forbidden" else "is missing; there are"
            lines.append(f"{name} (from {origin}): {problem['loc'][-1]} {what} {', '.join(Policy.model_fields)}")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{name} (from {origin}) is no setting; there are: {', '.join(Config.model_fields)}")
        else:
            field = Config.model_fields.get(name)
            given = "…" if field is not None and field.annotation is SecretStr else repr(problem["input"])
            lines.append(f"{name} = {given} (from {origin}): {problem['msg']}")
    return "; ".join(lines)
