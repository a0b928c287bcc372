"""Settings: flag > environment > file > default, and every wrong one says how to be right."""

import os
from pathlib import Path

import pytest

from hub.config import Config, age_ns, is_loopback, load_config
from hub.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without any HUB_ variable."""
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_loopback_and_local(tmp_path: Path) -> None:
    """Without any setting the hub listens on this machine only and keeps its data in ./hub-data."""
    loaded = load_config({})

    assert (loaded.config.host, loaded.config.port, loaded.config.data) == ("127.0.0.1", 8000, Path("hub-data"))
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.config.is_loopback


def test_flag_beats_environment_beats_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each place overrides the next one, and the origin names the winner."""
    (tmp_path / "hub.toml").write_text('port = 1\nlog_level = "error"\njournal_hours = 2\n')
    monkeypatch.setenv("HUB_PORT", "2")
    monkeypatch.setenv("HUB_LOG_LEVEL", "debug")

    loaded = load_config({"port": 3, "host": None})

    assert (loaded.config.port, loaded.config.log_level, loaded.config.journal_hours) == (3, "debug", 2.0)
    assert loaded.origins["port"] == "--port"
    assert loaded.origins["log_level"] == "$HUB_LOG_LEVEL"
    assert loaded.origins["journal_hours"] == "hub.toml"
    assert loaded.origins["host"] == "default"


def test_named_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--config names a file, and so does HUB_CONFIG."""
    (tmp_path / "other.toml").write_text("port = 7")
    (tmp_path / "env.toml").write_text("port = 8")
    monkeypatch.setenv("HUB_CONFIG", "env.toml")

    assert load_config({}, Path("other.toml")).config.port == 7
    assert load_config({}).config.port == 8


def test_client_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """HUB_URL and HUB_TOKEN belong to client commands and do not disturb the hub; empty ones count as unset."""
    monkeypatch.setenv("HUB_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("HUB_TOKEN", "x")
    monkeypatch.setenv("HUB_PORT", "")

    assert load_config({}).config.port == 8000


def test_sizes_take_units() -> None:
    """Bytes may be written as people write them."""
    assert load_config({"journal_bytes": "2GiB"}).config.journal_bytes == 2 * 1024**3


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param({"port": 70000}, "port = 70000 .from --port", id="port"),
        pytest.param({"log_level": "loud"}, "'debug', 'info', 'warning' or 'error'", id="log level"),
        pytest.param({"nonsense": 1}, "nonsense .from --nonsense. is no setting", id="unknown"),
        pytest.param({"tls_cert": "a.pem"}, "--tls-cert needs --tls-key", id="half of TLS"),
        pytest.param({"tls_client_ca": "ca.pem"}, "--tls-client-ca needs --tls-cert", id="client CA without TLS"),
        pytest.param({"tls_cert": "a.pem", "tls_key": "b.pem"}, "a.pem: no such file", id="missing certificate"),
        pytest.param({"host": "0.0.0.0"}, "hub tls init.*--insecure-lan", id="LAN without TLS"),
    ],
)
def test_wrong_setting_says_what_to_do(flags: dict[str, object], says: str) -> None:
    """The message names the setting, where it came from, and what it may be."""
    with pytest.raises(ConfigError, match=says):
        load_config(flags)


def test_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting in the file is an error, not silence."""
    (tmp_path / "hub.toml").write_text("prot = 1")

    with pytest.raises(ConfigError, match=r"prot \(from hub.toml\) is no setting"):
        load_config({})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            'raw = "1d"\nkeep_raw = "5y"', "keep_raw is not one of match, raw, rollups", id="behind the table"
        ),
        pytest.param('rollups = "1d"', "raw is missing; there are match, raw, rollups", id="missing"),
        pytest.param('raw = "-1d"', "use a whole number with h, d, w or y", id="no age"),
    ],
)
def test_wrong_policy_says_what_is_wrong_in_it(tmp_path: Path, content: str, says: str) -> None:
    """Before anything is dropped by it."""
    (tmp_path / "hub.toml").write_text(f'[[retention]]\nmatch = "lab-*"\n{content}')

    with pytest.raises(ConfigError, match=f"from hub.toml.*{says}"):
        load_config({})


def test_policies_in_a_variable_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is an error that shows how."""
    monkeypatch.setenv("HUB_RETENTION", '["lab-* 7d 5y"]')
    (policy,) = load_config({}).config.retention
    assert (policy.match, policy.raw, policy.rollups) == ("lab-*", "7d", "5y")
    monkeypatch.setenv("HUB_RETENTION", "lab-* 7d")

    with pytest.raises(ConfigError, match=r"retention.*HUB_RETENTION='\["):
        load_config({})


@pytest.mark.parametrize("content", [b"port = ", b"\xff"], ids=["syntax", "bytes"])
def test_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no TOML is named."""
    (tmp_path / "hub.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=r"hub\.toml"):
        load_config({})


def test_missing_named_file_is_refused() -> None:
    """A file that was asked for must exist."""
    with pytest.raises(ConfigError, match=r"no\.toml: no such settings file"):
        load_config({}, Path("no.toml"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "hub.local", ""])
def test_lan_needs_tls_or_a_word(tmp_path: Path, host: str) -> None:
    """Beyond this machine: TLS, or --insecure-lan in so many words."""
    (tmp_path / "c.pem").write_text("")
    (tmp_path / "k.pem").write_text("")

    with pytest.raises(ConfigError):
        Config(host=host)

    assert Config(host=host, insecure_lan=True).is_tls is False
    assert Config(host=host, tls_cert=Path("c.pem"), tls_key=Path("k.pem")).is_tls is True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_hosts(host: str) -> None:
    """All names of this machine count as loopback."""
    assert is_loopback(host)


def test_token_of_the_store_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes by the environment, and nothing that prints settings prints it."""
    monkeypatch.setenv("HUB_STORE_TOKEN", "s3cret")
    monkeypatch.setenv("HUB_STORE", "influxdb+http://127.0.0.1:8086/hub")

    config = load_config({}).config

    assert config.store_token.get_secret_value() == "s3cret"
    assert "s3cret" not in f"{config!r} {config.model_dump_json()}"


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} "])
def test_token_of_the_store_from_a_file_of_secrets(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    """Such files end with a line end, which no header may hold; those who find one there say it, token and all."""
    monkeypatch.setenv("HUB_STORE_TOKEN", around.format("s3cret"))

    assert load_config({}).config.store_token.get_secret_value() == "s3cret"


@pytest.mark.parametrize("token", ["s3\ncret", "s3cret\x00", 7_314_159])
def test_token_of_the_store_that_cannot_be(tmp_path: Path, token: object) -> None:
    """The setting is named, and not its value."""
    with pytest.raises(ConfigError, match="store_token") as found:
        load_config({"store_token": token})

    assert str(token) not in str(found.value)
    assert repr(token) not in str(found.value)


def test_store_is_one_of_those_there_are() -> None:
    """Anything else is refused, with the setting's name."""
    with pytest.raises(ConfigError, match="store"):
        load_config({"store": "postgres"})


@pytest.mark.parametrize(
    ("text", "hours"),
    [("1h", 1), ("36h", 36), ("30d", 720), ("2w", 336), ("5y", 43_800), ("for ever", None)],
)
def test_ages_are_words(text: str, hours: int | None) -> None:
    """Hours, days, weeks, years of 365 days; "for ever" has none."""
    assert age_ns(text) == (None if hours is None else hours * 3600 * 10**9)


@pytest.mark.parametrize("text", ["30", "0d", "1.5d", "-1d", "10m", "ever", "", "30 d"])
def test_a_wrong_age_says_how_to_be_right(text: str) -> None:
    """It is refused with an example."""
    with pytest.raises(ConfigError, match=r"keep_raw = .*from --keep-raw.*e.g. 30d, or 'for ever'"):
        load_config({"keep_raw": text})


def test_policies_are_tables_or_words(tmp_path: Path) -> None:
    """A table in the file and the words of a flag say the same; a flag takes the place of all tables."""
    tables = ['match = "lab-*/vibration"\nraw = "7d"\nrollups = "5y"', 'match = "*"\nraw = "for ever"']
    (tmp_path / "hub.toml").write_text("".join(f"[[retention]]\n{table}\n" for table in tables))
    words = ["lab-*/vibration 7d 5y", "* for ever"]

    in_file = load_config({}).config.retention

    assert in_file == load_config({"retention": words}).config.retention
    assert [(p.match, p.raw, p.rollups) for p in in_file] == [
        ("lab-*/vibration", "7d", "5y"),
        ("*", "for ever", "for ever"),
    ]


@pytest.mark.parametrize("policy", ["lab-*", "a 1d 2d 3d", "a 1x", {"match": "a"}, {"match": "a", "raw": "1d", "x": 1}])
def test_a_wrong_policy_is_refused(policy: object) -> None:
    """Whatever is wrong with it, the setting is named."""
    with pytest.raises(ConfigError, match="retention"):
        load_config({"retention": [policy]})


@pytest.mark.parametrize("origin", ["https://panel.example", "http://127.0.0.1:5173", "http://[::1]:8080"])
def test_origins_are_written_as_browsers_do(origin: str) -> None:
    """Scheme, host and port are all there is."""
    assert Config(allow_origin=[origin]).allow_origin == [origin]


@pytest.mark.parametrize(
    "origin", ["*", "null", "panel.example", "https://panel.example/", "https://Panel.example", "ftp://panel.example"]
)
def test_what_no_browser_would_say_is_refused(origin: str) -> None:
    """An origin that can never match, or that would match all, is a mistake."""
    with pytest.raises(ConfigError, match=r"allow_origin.*https://panel\.example"):
        load_config({"allow_origin": [origin]})


def test_zone_of_devices_must_be_known() -> None:
    """By its name; a path is none."""
    assert Config(device_zone="Europe/Berlin").device_zone == "Europe/Berlin"
    for zone in ("Mars/Olympus", "", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(ConfigError, match="Europe/Berlin"):
            load_config({"device_zone": zone})


@pytest.mark.parametrize(
    ("given", "port"), [("1884", 1884), (0, 0), ("off", "off"), (None, None)], ids=["number", "any", "off", "not said"]
)
def test_mqtt_port_is_a_number_or_off(given: object, port: object) -> None:
    """As a flag it is text."""
    assert load_config({"mqtt_port": given}).config.mqtt_port == port


@pytest.mark.parametrize(
    "setting",
    [{"mqtt_port": "on"}, {"mqtt_port": 65536}, {"mqtt_prefix": ""}, {"mqtt_prefix": "a/+"}, {"mqtt_prefix": "/a"},
     {"mqtt_prefix": "$hub"}, {"mqtt_prefix": "a/"}],
)  # fmt: skip
def test_mqtt_setting_that_cannot_be_is_named(setting: dict[str, object]) -> None:
    """A prefix is words between slashes, no wildcards."""
    with pytest.raises(ConfigError, match=next(iter(setting))):
        load_config(setting)
