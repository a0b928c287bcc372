"""Hooks of a greenhouse: what its sensors send, and who sees what of it.

    hub serve --hook hooks:ingest --hook hooks:authorize

started in the folder of this file. `docs/how-to/hooks.md` explains it.
"""

from hub.hooks import Columns, Context, Reject

# Sensors of the first delivery measure in °F, and nothing can be done about it there.
FAHRENHEIT = {"greenhouse-1", "greenhouse-2"}
# Who is responsible for which houses. A real hub asks a directory or a database here, and awaits it.
HOUSES = {"ann": ["greenhouse-1/**", "greenhouse-2/**"], "ben": ["*/battery"]}


def ingest(context: Context, columns: Columns) -> object:
    """Accept, change or reject the readings of one batch."""
    if context.name.startswith("test-"):
        return Reject("test devices are not stored")
    changed: dict[str, object] = {}
    if "debug" in columns:
        changed["debug"] = Reject("debug output is not stored")
    if "temperature" in columns:
        changed["temperature"] = [_temperature(context.name, value) for value in columns["temperature"].values]
    # Channels that are not named here stay as they are; an empty answer accepts all.
    return changed


def _temperature(device: str, value: object) -> object:
    if not isinstance(value, int | float):
        return Reject("the sensor sent no number")
    celsius = (value - 32) / 1.8 if device in FAHRENHEIT else value
    return celsius if -40 <= celsius <= 80 else Reject("no such temperature in a greenhouse")


async def authorize(context: Context, action: str, pattern: str) -> object:
    """Allow, deny or narrow what a credential may do; its own patterns stay the outer bound."""
    if action == "command":
        # What may be commanded is named, and pumps are not: they are operated by hand.
        return ["fan-*/**", "lamp-*/**"]
    if context.role == "watcher" and context.name in HOUSES:
        return HOUSES[context.name]
    return True
