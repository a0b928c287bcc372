"""``hub watch``: a line a reading where stdout is no terminal."""

from tests.hub.cli.conftest import Run
from tests.support.hub_process import HubProcess, free_port


def test_watch_prints_lines(run: Run, hub: HubProcess, recorded: str) -> None:
    """time device/channel value unit."""
    outcome = run("watch", f"{recorded}/temperature", "--since", "2026-11-22T19:33:00Z", "-n", 2, "--url", hub.url)

    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        f"2026-11-22 19:33:20Z {recorded}/temperature 20 °C",
        f"2026-11-22 19:33:21Z {recorded}/temperature 21 °C",
    ]


def test_watch_needs_a_hub(run: Run) -> None:
    """The first connection must work; only later ones are tried again."""
    assert run("watch", "--url", f"http://127.0.0.1:{free_port()}").code == 3
