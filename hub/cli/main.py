"""The tree of commands and the one place where errors become exit codes.

Owns: the top level. Place: after every command's module.
"""

import sys
from collections.abc import Sequence

import typer

from hub.cli import (
    backup,
    certificates,
    children,
    claims,
    commands,
    configuration,
    decoding,
    devices,
    discovering,
    history,
    importing,
    live,
    log,
    metadata,
    options,
    quarantine,
    serving,
    simulation,
    state,
    status,
    tls,
    tokens,
    users,
    watchers,
)
from hub.cli.exit_code import ExitCode, exit_code_of

_EPILOG = (
    "Exit codes: 0 ok · 1 failed · 2 usage · 3 no hub answers · 4 refused credential · "
    "5 not found · 6 exists · 130 Ctrl-C"
)

app = typer.Typer(
    name="hub",
    help="Telemetry hub: devices in, durable history and live pages out.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serving.serve)
app.add_typer(devices.app, name="devices")
app.add_typer(claims.app, name="claims")
app.add_typer(tokens.app, name="tokens")
app.add_typer(children.app, name="children")
app.add_typer(metadata.app, name="metadata")
app.add_typer(users.app, name="users")
app.command("log")(log.log)
app.command("command")(commands.command)
app.add_typer(commands.app, name="commands")
app.add_typer(state.app, name="state")
app.command("watch")(live.watch)
app.command("query")(history.query)
app.command("export")(history.export)
app.command("import")(importing.import_history)
app.command("audit")(history.audit)
app.command("status")(status.status)
app.command("watchers")(watchers.watchers)
app.add_typer(quarantine.app, name="quarantine")
app.command("backup")(backup.backup)
app.add_typer(simulation.app, name="simulate")
app.add_typer(tls.app, name="tls")
app.add_typer(certificates.app, name="certificates")
app.command("discover")(discovering.discover)
app.command("decode")(decoding.decode)
app.add_typer(configuration.app, name="config")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Raises:
        SystemExit: always.
    """
    options.set_command(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        sys.stderr.write(f"hub: {error}\n")
        sys.exit(code)
