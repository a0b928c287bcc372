"""``hub status``: what the hub's data takes, how fast it grows, and when that ends.

Place: a command module; see `hub.cli`.
"""

import typer

from hub.cli import options, output

_UNITS = ("B", "kB", "MB", "GB", "TB")


def status(
    url: options.Url = options.DEFAULT_URL,
    token: options.Token = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Show how much a running hub stores, how fast it grows, and what was dropped; takes an admin token."""
    answer = options.open_client(url, token, ca).get("/v1/status")
    if as_json:
        output.show_json(answer)
        return
    budget, per_day, left = answer["disk_budget"], answer["readings_per_day"], answer["days_left"]
    size = answer["journal_bytes"] + answer["store_bytes"]
    each = answer["bytes_per_reading"]
    lines = [
        f"readings     {answer['readings']:,}" + (f", {each:.1f} bytes each with their sums" if each else ""),
        f"disk         {size_text(size)}: journal {size_text(answer['journal_bytes'])}, "
        f"readings {size_text(answer['store_bytes'])}",
        "growth       " + ("not known in the first minute" if per_day is None else f"{per_day:,.0f} readings a day"),
        "disk budget  " + ("none" if budget is None else f"{size_text(budget)}, {size * 100 // budget} % of it taken"),
        f"dropped      {answer['expired']:,} whose time was over, {answer['dropped_early']:,} early, since the start",
    ]
    if left is not None:
        lines[3] += f", {left:,.1f} days until it is reached if nothing is dropped"
    if answer["is_full"]:
        lines.append(
            "FULL: devices wait, for nothing is left to drop, or more comes than can be dropped; raise --disk-budget"
        )
    typer.echo("\n".join(lines))


def size_text(size: float) -> str:
    """Return bytes as a person says them."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"
