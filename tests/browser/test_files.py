"""The page's files, without a browser: what index.html names exists, and nothing is inline or from elsewhere."""

import re

from tests.support.hub_process import ROOT

PAGE = ROOT / "hub" / "page"
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")


def test_every_module_is_preloaded() -> None:
    """A browser learns of all modules at once instead of level by level."""
    preloaded = set(re.findall(r'rel="modulepreload" href="/page/([^"]+)"', INDEX))

    assert preloaded == {path.name for path in PAGE.glob("*.js")} - {"theme.js"} | {"vendor/uPlot.esm.js"}


def test_every_file_named_exists() -> None:
    """index.html names no file that is not there (vendor/ is filled at build time)."""
    named = re.findall(r'(?:src|href)="/page/([^"]+)"', INDEX)

    assert [name for name in named if not name.startswith("vendor/") and not (PAGE / name).is_file()] == []


def test_a_strict_policy_suffices() -> None:
    """No inline script, style or handler, and no address of another host."""
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", INDEX) == []
    texts = [INDEX, *(path.read_text(encoding="utf-8") for path in (*PAGE.glob("*.js"), *PAGE.glob("css/*.css")))]
    assert [found for text in texts for found in re.findall(r"https?://[^\s\"']+", text)] == []


def test_files_stay_small() -> None:
    """A module beyond 400 lines is two."""
    assert [path.name for path in PAGE.glob("*.js") if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []
