"""``hub config show``: which settings hold, and where each came from.

Place: a command module; see `hub.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from hub.cli import options, output

app = typer.Typer(help="The hub's settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``show`` a subcommand though it is the only one."""


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also tell where each value came from.")] = False,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file instead of ./hub.toml.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show the settings `hub serve` would use: flag > environment HUB_* > hub.toml > default."""
    from hub.config import Config, load_config

    loaded = load_config({}, config)
    values = loaded.config.model_dump(mode="json")
    rows = [
        {"setting": name, "value": values[name], "origin": loaded.origins[name], "about": field.description}
        for name, field in Config.model_fields.items()
    ]
    columns = ["setting", "value", "origin"] if origin else ["setting", "value"]
    output.show_rows(rows, columns, as_json=as_json)
