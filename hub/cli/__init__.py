"""The command ``hub``: one module per group of commands.

Owns: what a person types and reads. Place: rightmost; beside `app` nothing
imports it. Must not: import anything heavy at the top of a module, for
``hub --help`` answers in under 150 ms.
"""

try:
    from hub.cli.main import main
except ModuleNotFoundError as error:
    # The two distributions are removed one at a time: the hub without the SDK says so instead of showing a traceback.
    if (error.name or "").split(".")[0] != "device_sdk":
        raise
    raise SystemExit(
        "hub: the package telemetry-device-sdk is missing; run `pip install telemetry-device-sdk`"
    ) from None

__all__ = ["main"]
