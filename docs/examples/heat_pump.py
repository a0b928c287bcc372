"""A decoder for a heat pump that sends ``35.2;1480;1`` to ``heatpump/<number>``: temperature, power, whether it runs.

    hub serve --decoder heat_pump:decode

started in the folder of this file. `docs/how-to/existing-devices.md` explains it.
"""

from device_sdk.reading import Channel
from hub.decode.base import Decoded, ForeignReading, Publication, Said

CHANNELS = (Channel("flow", "Cel", label="flow temperature"), Channel("power", "W"), Channel("running"))


def decode(publication: Publication) -> Decoded | None:
    """Return what a heat pump says; None: the message is of something else."""
    first, _, number = publication.topic.partition("/")
    if first != "heatpump":
        return None
    flow, power, running = publication.payload.decode().split(";")
    readings = (
        ForeignReading("flow", float(flow)), ForeignReading("power", int(power)),
        ForeignReading("running", running == "1"),
    )  # fmt: skip
    return Decoded("heat pump", (Said(f"heatpump-{number}", readings, CHANNELS),))
