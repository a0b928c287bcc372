"""The real nginx and caddy with the configuration files of deploy/: child processes on free ports of the loopback."""

import getpass
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.support.certificate import make_certificate
from tests.support.hub_process import ROOT, free_port

START_LIMIT_S = 10.0
# Debian puts nginx where a user's PATH does not lead.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
PROGRAMS = {name: shutil.which(name, path=_PATH) for name in ("nginx", "caddy")}

# One process, so that who kills it leaves none; everything it writes is in the test's folder.
_NGINX_MAIN = """daemon off; master_process off; user {user}; pid {folder}/nginx.pid; error_log {folder}/nginx.log info;
events {{}}
http {{
    access_log off;
    {temporary}
    {http}
    include {folder}/telemetry-hub.conf;
}}
"""
_CADDY_GLOBAL = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"


class ReverseProxy:
    """nginx or caddy in front of a hub, ending TLS; may be killed and started again.

    Args:
        kind: ``nginx`` or ``caddy``.
        folder: where its files are.
        hub_port: of the hub on this machine.
        changes: text of the configuration file → what stands there instead; each must be there.
        http: of nginx, further lines for all servers.
    """

    def __init__(
        self, kind: str, folder: Path, hub_port: int, changes: Mapping[str, str] | None = None, http: str = ""
    ) -> None:
        folder.mkdir()
        self.port, self.plain_port = free_port(), free_port()
        self._certificate = make_certificate(folder)
        self.ca = self._certificate.ca
        self._folder = folder
        self._log = folder / f"{kind}.log"
        self._process: subprocess.Popen[bytes] | None = None
        make = {"nginx": self._nginx, "caddy": self._caddy}[kind]
        self._command = make(hub_port, changes or {}, http)

    @property
    def url(self) -> str:
        """Base URL of HTTP."""
        return f"https://localhost:{self.port}"

    @property
    def ws_url(self) -> str:
        """Base URL of WebSocket."""
        return f"wss://localhost:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What clients trust."""
        return ssl.create_default_context(cafile=str(self.ca))

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        """Return an HTTP client that asks through it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(trust_env=False, verify=self.trust, base_url=self.url, headers=headers, timeout=70)

    def start(self) -> "ReverseProxy":
        """Start and wait until it takes connections; raise with its log when it does not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder),
                     "XDG_CONFIG_HOME": str(self._folder)},
            )  # fmt: skip
        end = time.monotonic() + START_LIMIT_S
        while self._process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return self
        self.kill()
        raise AssertionError(f"it did not start; its log ends:\n{self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _nginx(self, hub_port: int, changes: Mapping[str, str], http: str) -> list[str]:
        text = (ROOT / "deploy" / "nginx" / "telemetry-hub.conf").read_text(encoding="utf-8")
        places = {
            "    listen [::]:80;\n": "", "    listen [::]:443 ssl http2;\n": "",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};", "listen 443 ": f"listen 127.0.0.1:{self.port} ",
            "server_name hub.example;": "server_name localhost;", "127.0.0.1:8000": f"127.0.0.1:{hub_port}",
            "/etc/letsencrypt/live/hub.example/fullchain.pem": str(self._certificate.cert),
            "/etc/letsencrypt/live/hub.example/privkey.pem": str(self._certificate.key),
        }  # fmt: skip
        (self._folder / "telemetry-hub.conf").write_text(_replaced(text, {**changes, **places}), encoding="utf-8")
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{name}_temp_path {self._folder}/{name};" for name in names)
        main = self._folder / "nginx.conf"
        main.write_text(_NGINX_MAIN.format(user=getpass.getuser(), folder=self._folder, temporary=temporary, http=http))
        return [str(PROGRAMS["nginx"]), "-p", str(self._folder), "-e", f"{self._folder}/nginx.log", "-c", str(main)]

    def _caddy(self, hub_port: int, changes: Mapping[str, str], http: str) -> list[str]:
        text = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text(encoding="utf-8")
        made = self._certificate
        site = f"https://localhost:{self.port} {{\n\tbind 127.0.0.1\n\ttls {made.cert} {made.key}\n"
        places = {"\nhub.example {\n": f"\n{site}", "127.0.0.1:8000": f"127.0.0.1:{hub_port}"}
        file = self._folder / "Caddyfile"
        # Options of the whole server must come first, before comments too.
        file.write_text(_CADDY_GLOBAL + _replaced(text, {**changes, **places}), encoding="utf-8")
        return [str(PROGRAMS["caddy"]), "run", "--adapter", "caddyfile", "--config", str(file)]

    def __enter__(self) -> "ReverseProxy":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _replaced(text: str, places: Mapping[str, str]) -> str:
    for old, new in places.items():
        assert old in text, f"{old!r} is not in the file of deploy/ any more"
        text = text.replace(old, new)
    return text
