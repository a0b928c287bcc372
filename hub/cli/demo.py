"""The demo's devices beside ``hub serve --demo``: enrolled, started as a process of their own, ended with the hub.

Place: after `enrol`, before `serving`. The simulators speak to the hub over
real WebSockets, like any device, so they run outside its process.
"""

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hub.app import Hub
from hub.cli.enrol import enrol_in_folder
from hub.cli.output import tell
from simulators.demo import demo_names

# The whole hub stops in at most 2 s; simulated devices have little to save.
_END_S = 0.7


def start_demo(hub: Hub, url: str) -> Callable[[], None]:
    """Enrol the demo's devices and start them; return what ends them.

    They also end by themselves when their stdin does, so not even a kill of
    the hub leaves them behind. Ctrl-C reaches the hub alone.
    """
    names = demo_names()
    tokens = enrol_in_folder(hub.config.data, names, skip_others=True)
    cert = hub.config.tls_cert
    start = {"url": url.replace("http", "ws", 1), "tokens": tokens, "fingerprint": cert and fingerprint_of(cert)}
    command = [sys.executable, "-m", "simulators.demo"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
    assert process.stdin is not None, "stdin is a pipe"
    # Tokens go through the pipe: an argument or the environment could be read by others.
    process.stdin.write(json.dumps(start).encode() + b"\n")
    process.stdin.flush()
    tell(f"  demo     {len(tokens)} devices: simulated ones and this machine; Ctrl-C ends everything")
    if len(tokens) < len(names):
        tell(f"           {len(names) - len(tokens)} of its names belong to devices of yours and are left alone")

    def end() -> None:
        process.terminate()
        try:
            process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    return end


def fingerprint_of(cert: Path) -> str:
    """Return the SHA-256 fingerprint (hex) of the first certificate of a PEM file."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, _, rest = cert.read_text(encoding="ascii").partition(begin)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(begin + rest.partition(end)[0] + end)).hexdigest()
