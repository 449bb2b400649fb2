"""The site of the pages builds without a warning, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(v for k in ("id", "name") if (v := values.get(k)))
        self.links += [v for k in ("href", "src") if (v := values.get(k)) and tag != "link"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_links_lead_to_pages_and_anchors(site):
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 20
    lost = []
    for path, page in pages.items():
        if path.name == "404.html":  # whose links are those of the root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert lost == []


def test_the_reference_describes_what_users_import(site):
    text = (site / "reference/predict/index.html").read_text(encoding="utf-8")
    assert 'id="detrex.predict.Predictor.predict"' in text
    shown = re.sub(r"<[^>]*>", "", text)
    assert ":class:" not in shown and "score_threshold" in shown
    assert 'href="#detrex.predict.Result"' in text  # a name in a docstring


def test_the_first_page_is_the_front_page(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "Which config?" in text and 'href="training/#busy-machines"' in text
