"""The page's files, without a browser: what index.html names exists, and nothing is inline or from elsewhere."""

import re

from tests.support.hub_process import ROOT

PAGE = ROOT / "hub" / "page"
MODULES = [*PAGE.glob("*.js"), *PAGE.glob("client/*.js")]
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")


def test_every_module_is_preloaded() -> None:
    """A browser learns of all modules at once instead of level by level."""
    preloaded = set(re.findall(r'rel="modulepreload" href="/page/([^"]+)"', INDEX))
    client = set(re.findall(r'rel="modulepreload" href="/client/v1/([^"]+)"', INDEX))

    assert preloaded == {path.name for path in PAGE.glob("*.js")} - {"theme.js"} | {"vendor/uPlot.esm.js"}
    assert client == {path.name for path in (PAGE / "client").glob("*.js")}


def test_every_file_named_exists() -> None:
    """index.html names no file that is not there (vendor/ is filled at build time)."""
    named = re.findall(r'(?:src|href)="/page/([^"]+)"', INDEX.replace('"/client/v1/', '"/page/client/'))

    assert [name for name in named if not name.startswith("vendor/") and not (PAGE / name).is_file()] == []


def test_a_strict_policy_suffices() -> None:
    """No inline script, style or handler, and no address of another host."""
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", INDEX) == []
    texts = [INDEX, *(path.read_text(encoding="utf-8") for path in (*MODULES, *PAGE.glob("css/*.css")))]
    assert [found for text in texts for found in re.findall(r"https?://[^\s\"']+", text)] == []


def test_files_stay_small() -> None:
    """A module beyond 400 lines is two."""
    assert [path.name for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_client_needs_nothing_beside_it() -> None:
    """The modules that other pages import name only each other."""
    client = PAGE / "client"
    texts = [path.read_text(encoding="utf-8") for path in client.glob("*.js")]
    named = {name for text in texts for name in re.findall(r'^(?:import|export) .*from "([^"]+)";', text, re.MULTILINE)}

    assert named == {f"./{path.name}" for path in client.glob("*.js")} - {"./hub-client.js"}


def test_client_declares_what_it_exports() -> None:
    """Whatever hub-client.d.ts promises is there; what is there beside it serves the hub's own page and tests."""
    module = (PAGE / "client" / "hub-client.js").read_text(encoding="utf-8")
    exported = set(re.findall(r"^export (?:class|function) (\w+)", module, re.MULTILINE))
    exported |= {
        name for line in re.findall(r"^export \{ (.+) \} from", module, re.MULTILINE) for name in line.split(", ")
    }
    types = (PAGE / "client" / "hub-client.d.ts").read_text(encoding="utf-8")
    declared = set(re.findall(r"^export (?:class|function|const) (\w+)", types, re.MULTILINE))

    assert declared - exported == set()
    assert exported - declared == {
        "Backoff", "Connection", "EventParser", "Hub", "Session", "Watch", "exactValue", "renewAfter",
    }  # fmt: skip
