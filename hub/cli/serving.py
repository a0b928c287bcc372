"""``hub serve``.

Place: a command module; see `hub.cli`. The help texts are those of
`hub.config`, repeated because importing it would double the time of
``hub --help``; a test compares them.
"""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    data: Annotated[Path | None, typer.Option(help="Folder of the hub's files; made when absent.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond this machine it needs TLS.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for everything; 0 takes a free one.")] = None,
    mqtt_port: Annotated[
        str | None,
        typer.Option(help="Port for MQTT; by default 1883 (TLS: 8883) on loopback, if it is free; or off."),
    ] = None,
    mqtt_prefix: Annotated[
        str | None, typer.Option(help="How the hub's own MQTT topics begin: PREFIX/DEVICE/up.")
    ] = None,
    mqtt_url: Annotated[
        str | None,
        typer.Option(
            help="A broker to take messages from: mqtts://USER:PASSWORD@HOST; as $HUB_MQTT_URL (extra `mqtt`)."
        ),
    ] = None,
    mqtt_ca: Annotated[
        Path | None, typer.Option(help="Authority (PEM) that the broker's certificate is checked against.")
    ] = None,
    mqtt_topic: Annotated[
        list[str] | None,
        typer.Option(help="Topics to take from the broker beside the hub's own, e.g. 'zigbee2mqtt/#'; all."),
    ] = None,
    mqtt_group: Annotated[
        str | None, typer.Option(help="Share those topics with the other hubs of this group: each message goes to one.")
    ] = None,
    ha_discovery: Annotated[
        str | None,
        typer.Option(
            help="Home Assistant's broker, where the hub's devices are announced: mqtt://USER:PASSWORD@HOST; as "
            "$HUB_HA_DISCOVERY (extra `mqtt`)."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM); `hub tls init` makes one.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key (PEM) of the certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Authority (PEM) whose certificates let devices in without a token.")
    ] = None,
    insecure_lan: Annotated[
        bool | None,
        typer.Option("--insecure-lan", help="Listen beyond this machine without TLS: tokens travel readable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let web pages of another origin ask this hub, e.g. https://panel.example."),
    ] = None,
    announce: Annotated[
        bool | None, typer.Option("--announce", help="Announce the hub in its network by mDNS (extra `discovery`).")
    ] = None,
    socketio: Annotated[
        bool | None, typer.Option("--socketio", help="Let Socket.IO clients watch, at /socket.io (extra `socketio`).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file instead of ./hub.toml.")] = None,
    demo: Annotated[
        bool | None, typer.Option("--demo", help="Run 200 simulated devices and this machine as a device.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="Least level that is logged.")] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where readings are: rows, columns (smaller; no way back), or a server: "
            "influxdb+http://…, influxdb2+http://…, victoriametrics+http://…"
        ),
    ] = None,
    keep_raw: Annotated[
        str | None,
        typer.Option(
            help="Age up to which single readings are kept, e.g. 30d or 'for ever'; by default 30d in new folders."
        ),
    ] = None,
    keep_rollups: Annotated[
        str | None, typer.Option(help="How long sums of dropped readings by minute and hour are kept, e.g. 5y.")
    ] = None,
    retention: Annotated[
        list[str] | None,
        typer.Option(help="Other times for some series: 'PATTERN RAW [ROLLUPS]'; the first that matches counts."),
    ] = None,
    disk_budget: Annotated[
        str | None,
        typer.Option(
            help="Bytes that journal and readings may take, e.g. 20GB; beyond it the oldest readings go early."
        ),
    ] = None,
    hook: Annotated[
        list[str] | None,
        typer.Option(
            help="Hooks that say what people may see and what devices send: MODULE:NAME, or an entry point's name."
        ),
    ] = None,
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Decoders for more kinds of devices, asked before ours: MODULE:NAME, or an entry point's name."
        ),
    ] = None,
    device_zone: Annotated[
        str | None, typer.Option(help="Zone of devices that send local times without one, e.g. Europe/Berlin.")
    ] = None,
    journal_hours: Annotated[
        float | None, typer.Option(help="Hours the journal keeps frames for watchers to resume from.")
    ] = None,
    journal_bytes: Annotated[str | None, typer.Option(help="Bytes the journal keeps at most, e.g. 1GiB.")] = None,
) -> None:
    """Run the hub until Ctrl-C: devices, REST, live watchers and the page on one port."""
    # Before anything else has a name here.
    flags: dict[str, object] = dict(locals())
    del flags["config"]

    from hub.config import load_config

    loaded = load_config(flags, config).config

    from hub.allocator import collect_seldom
    from hub.server import serve as run_hub

    collect_seldom()
    started = None
    if loaded.demo:
        from hub.cli.demo import start_demo

        started = start_demo
    if code := run_hub(loaded, started=started):
        raise typer.Exit(code)
