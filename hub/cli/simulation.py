"""``hub simulate``: fleets, replays of CSV files, this machine as a device; with a ledger that must balance.

Place: a command module; see `hub.cli`. The work is done by `simulators`.
"""

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import faults, options, output
from hub.cli.exit_code import CliError, ExitCode

if TYPE_CHECKING:
    from simulators.ledger import Ledger
    from simulators.link import Link, Summary
    from simulators.replay import Scan
    from simulators.verdict import Verdict

app = typer.Typer(help="Devices that are not there, and this machine as one.", no_args_is_help=True)
app.command("proxy")(faults.proxy)

LedgerFolder = Annotated[
    Path | None, typer.Option("--ledger", help="Witness all readings and acks here; exit 1 when it does not balance.")
]
Spool = Annotated[Path | None, typer.Option(help="Keep un-acked readings here, to survive a kill; default: in memory.")]
Data = Annotated[Path | None, typer.Option("--data", help="Enrol in this data folder, on the hub's own machine.")]
Token = Annotated[str | None, typer.Option("--token", envvar="HUB_TOKEN", help="An admin's token, to enrol devices.")]
DeviceUrl = Annotated[
    str | None, typer.Option(help="Where devices connect, e.g. mqtt://127.0.0.1; default: where the hub is.")
]
Replace = Annotated[bool, typer.Option("--replace-tokens", help="Devices that exist get new tokens.")]

# Faults of a file that are named one by one; the rest is counted.
_FAULTS_SHOWN = 50


@app.command("fleet")
def fleet(
    devices: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    rate: Annotated[float, typer.Option(min=0.001, help="Samples a second of each device, 3 or 4 values each.")] = 1.0,
    duration: Annotated[float, typer.Option(min=0.001, help="Seconds.")] = 60.0,
    prefix: Annotated[str, typer.Option(help="Names are the prefix and a number.")] = "sim-",
    seed: Annotated[int, typer.Option(help="Other seed, other readings.")] = 1,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to wait for the last acks.")] = 60.0,
    chaos: faults.Chaos = None,
    chaos_every: faults.Every = faults.EVERY_S,
    ledger: LedgerFolder = None,
    spool: Spool = None,
    device_url: DeviceUrl = None,
    url: options.Url = options.DEFAULT_URL,
    token: Token = None,
    ca: options.Ca = None,
    data: Data = None,
    replace_tokens: Replace = False,
    as_json: options.Json = False,
) -> None:
    """Run many simulated devices in this process.

    With --chaos their connections are cut, reset, stalled and half-closed on the way to the hub until the drain
    begins; a ledger is kept and must balance.
    """
    from functools import partial

    from simulators.fleet import run_fleet
    from simulators.progress import show_progress
    from simulators.sensor import numbered_fleet

    cast = numbered_fleet(devices, prefix, seed)
    target = _Target(url, token, ca, data, device_url)
    link = target.enrol([device.name for device in cast], spool, replace_tokens)

    async def work(witness: "Ledger | None") -> "Summary":
        with show_progress("fleet", round(devices * rate * duration)) as progress:
            play = partial(
                run_fleet, devices=cast, rate_hz=rate, duration_s=duration, ledger=witness, progress=progress,
                drain_s=drain,
            )  # fmt: skip
            if chaos is None or folder is None:
                return await play(link)
            summary, carrier = await faults.run_through_chaos(
                link, lambda link, weather: play(link, faults=weather), chaos, chaos_every, folder
            )
        faults.show_faults(carrier, chaos, as_json)
        return summary

    with _ledger_folder(ledger, is_needed=chaos is not None) as folder:
        _run(work, target, [device.name for device in cast], folder, as_json)


@app.command("replay")
def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CSV file with a header.")],
    map: Annotated[Path | None, typer.Option("--map", help="MAP.toml: time, [[column]] name, device, channel.")] = None,
    device: Annotated[str | None, typer.Option(help="Without a map: all columns become channels of it.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Without a map: the column of the time.")] = None,
    tz: Annotated[str | None, typer.Option(help="Zone of times without one: Europe/Brussels, or +01:00.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of fields; default: seen in the header.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="× real time; default: as fast as acks allow.")] = None,
    rebase_time: Annotated[
        str | None, typer.Option(help="`now`: the last row becomes now (with --speed: the first, then on from there).")
    ] = None,
    skip_faults: Annotated[bool, typer.Option("--skip-faults", help="Send the good rows of a bad file.")] = False,
    drain: Annotated[float, typer.Option(min=0, help="Seconds to wait for the last acks.")] = 300.0,
    ledger: LedgerFolder = None,
    spool: Spool = None,
    url: options.Url = options.DEFAULT_URL,
    token: Token = None,
    ca: options.Ca = None,
    data: Data = None,
    replace_tokens: Replace = False,
    as_json: options.Json = False,
) -> None:
    """Replay a CSV file through devices, at the rows' own times."""
    from time import time_ns

    from simulators import replay as work_module
    from simulators.csv_map import MapError, guess_map, load_map
    from simulators.local_time import TimeError, parse_zone
    from simulators.progress import show_progress

    if rebase_time not in (None, "now"):
        raise CliError(f"--rebase-time {rebase_time!r}: the only choice is now", ExitCode.USAGE)
    try:
        header, delimiter = work_module.read_header(file, delimiter)
        csv_map = load_map(map, header) if map else guess_map(header, device or _device_of(file), time)
        zone = parse_zone(tz) if tz else None
        scanned = work_module.scan(file, csv_map, zone, delimiter)
    except (MapError, TimeError, UnicodeDecodeError, ValueError) as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    _tell_scan(file, scanned, len(csv_map.devices), len(csv_map.columns))
    if scanned.faults and not skip_faults:
        raise CliError(
            "nothing was sent; mend the file, give the right --tz, or leave those rows out with --skip-faults"
        )
    if scanned.rows == 0:
        raise CliError(f"{file} holds no row to replay")
    target = _Target(url, token, ca, data)
    link = target.enrol(csv_map.devices, spool, replace_tokens)
    move = work_module.rebase_to_now(scanned, time_ns(), speed) if rebase_time else None

    async def work(witness: "Ledger | None") -> "Summary":
        rows = work_module.read_rows(file, csv_map, zone, delimiter)
        with show_progress("replay", scanned.rows) as progress:
            return await work_module.run_replay(
                link, rows, csv_map, scanned, speed=speed, move=move, ledger=witness, progress=progress, drain_s=drain
            )

    _run(work, target, csv_map.devices, ledger, as_json)
    if scanned.faults:
        raise CliError(f"{len(scanned.faults)} rows of {file} were left out; they are named above")


@app.command("host")
def host(
    name: Annotated[str | None, typer.Option(help="Device name; default: this machine's.")] = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between readings.")] = 1.0,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds; default: until Ctrl-C.")] = None,
    ledger: LedgerFolder = None,
    spool: Spool = None,
    url: options.Url = options.DEFAULT_URL,
    token: Token = None,
    ca: options.Ca = None,
    data: Data = None,
    replace_tokens: Replace = False,
    as_json: options.Json = False,
) -> None:
    """Record this machine: processor, memory, disk, load, temperature where there is a sensor."""
    from simulators.host import host_name, run_host

    device = name or host_name()
    target = _Target(url, token, ca, data)
    link = target.enrol([device], spool, replace_tokens)

    async def work(witness: "Ledger | None") -> "Summary":
        return await run_host(link, device, every_s=every, duration_s=duration, ledger=witness)

    _run(work, target, [device], ledger, as_json)


@app.command("verdict")
def verdict(
    ledger: Annotated[
        Path, typer.Option("--ledger", exists=True, file_okay=False, help="Folder of earlier --ledger runs.")
    ],
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Compare a ledger with what the hub holds now; exit 1 when it does not balance."""
    from hub.cli.check import compare_with_files, compare_with_hub

    if data is not None:
        found = compare_with_files(data, ledger)
    else:
        found = compare_with_hub(options.open_client(url, token, ca), ledger)
    _show_verdict(found, ledger, as_json)


class _Target:
    """The hub that simulated devices speak to, and how they are enrolled there."""

    def __init__(
        self, url: str, token: str | None, ca: Path | None, data: Path | None, device_url: str | None = None
    ) -> None:
        self.client = options.open_client(url, token, ca)
        self._data = data
        self._device_url = device_url or self.client.device_url
        # An authority is of no use on the way to a broker of the same machine.
        self._ca = None if device_url is not None and device_url.startswith(("ws:", "mqtt:")) else ca

    def enrol(self, names: list[str], spool: Path | None, replace: bool) -> "Link":
        from hub.cli.enrol import enrol_by_rest, enrol_in_folder
        from simulators.link import Link

        if self._data is not None:
            tokens = enrol_in_folder(self._data, names, replace=replace)
        else:
            tokens = enrol_by_rest(self.client, names, replace=replace)
        return Link(self._device_url, tokens, ca=self._ca, spool=spool)


def _run(
    work: "Callable[[Ledger | None], Coroutine[Any, Any, Summary]]",
    target: _Target,
    names: list[str],
    folder: Path | None,
    as_json: bool,
) -> None:
    """Do the work with a witness where one is wanted, show the summary, and fail when something is missing."""
    import asyncio

    from hub.cli.check import compare_with_hub
    from simulators.ledger import Ledger, write_baseline

    witness = None
    if folder is not None:
        held = {series["device"] for series in target.client.get("/v1/audit")["series"] if series["rows"]}
        write_baseline(folder, held & set(names))
        witness = Ledger(folder)
    try:
        summary = asyncio.run(work(witness))
    finally:
        if witness is not None:
            witness.close()
    _show_summary(summary, as_json)
    if folder is not None:
        _show_verdict(compare_with_hub(target.client, folder), folder, as_json)
    if not summary.is_drained:
        raise CliError(f"{summary.pending} readings were not acked in time; {'; '.join(summary.last_errors)}")


@contextmanager
def _ledger_folder(given: Path | None, *, is_needed: bool) -> Iterator[Path | None]:
    """Give the ledger's folder; one that nobody named lies with the temporary files, and stays when something fails."""
    import shutil
    import tempfile

    if given is not None or not is_needed:
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="hub-ledger-"))
    try:
        yield folder
    except BaseException:
        output.tell(f"note: the ledger of this run stays in {folder}")
        raise
    shutil.rmtree(folder)


def _show_summary(summary: "Summary", as_json: bool) -> None:
    if as_json:
        output.show_json(asdict(summary))
        return
    per_second = summary.recorded / summary.seconds if summary.seconds else 0.0
    typer.echo(
        f"{summary.devices} devices, {summary.recorded:,} readings in {summary.seconds:.1f} s ({per_second:,.0f}/s): "
        f"{summary.acked:,} acked, {summary.pending} pending, {summary.dropped} dropped, {summary.rejected} rejected"
    )


def _show_verdict(verdict: "Verdict", folder: Path, as_json: bool) -> None:
    """Show it, and fail when it does not balance."""
    rows = [{**asdict(finding), "balanced": finding.is_balanced} for finding in verdict.findings]
    if as_json:
        output.show_json({"balanced": verdict.is_balanced, "devices": rows})
    else:
        columns = ["device", "produced", "stored", "declared", "lost", "doubled", "altered", "unwitnessed", "balanced"]
        output.show_rows(rows, columns, as_json=False, empty="the ledger is empty")
        for finding in verdict.findings:
            for example in finding.examples:
                output.tell(f"{finding.device}: {example}")
        state = "balanced" if verdict.is_balanced else "NOT balanced"
        typer.echo(
            f"ledger {state}: {verdict.total('produced'):,} produced, {verdict.total('stored'):,} stored, "
            f"{verdict.total('lost')} lost, {verdict.total('doubled')} doubled, {verdict.total('altered')} altered, "
            f"{verdict.total('declared')} declared"
        )
    if not verdict.is_balanced:
        raise CliError(f"the ledger in {folder} does not balance")


def _tell_scan(file: Path, scanned: "Scan", devices: int, channels: int) -> None:
    output.tell(
        f"{file}: {scanned.rows:,} rows, {scanned.readings:,} readings of {devices} devices and {channels} channels, "
        f"{scanned.blanks} blanks, {output.show_time(scanned.first_ns)} to {output.show_time(scanned.last_ns)}"
    )
    for fault in scanned.faults[:_FAULTS_SHOWN]:
        sys.stderr.write(f"{file}: {fault}\n")
    if len(scanned.faults) > _FAULTS_SHOWN:
        output.tell(f"and {len(scanned.faults) - _FAULTS_SHOWN} more rows like these")


def _device_of(file: Path) -> str:
    from simulators.csv_map import slug

    return slug(file.stem)[:64]
