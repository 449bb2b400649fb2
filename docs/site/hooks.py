"""What MkDocs does besides: README.md is the first page, and links that leave docs/ go to the repository."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>(~?)([\w.]+)</code>")
LINKS = runpy.run_path(str(ROOT / "docs/site/links.py"))


def on_files(files: Files, config: Any) -> Files:
    """Adds the first page."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    content = LINKS["with_absolute_links"](readme, LINKS["repository_address"](), stays=_page)
    files.append(File.generated(config, "index.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the links of a page."""
    if page.file.src_uri == "index.md":
        return markdown
    folder = str(Path("docs", page.file.src_uri).parent).replace("\\", "/")
    depth = page.file.src_uri.count("/")

    def stays(path: str) -> str | None:
        kept = _page(path)
        return None if kept is None else "../" * depth + kept

    return LINKS["with_absolute_links"](markdown, LINKS["repository_address"](), folder, stays)


def on_page_content(html: str, **_: Any) -> str:
    """Links names in docstrings, which are written as in Sphinx, to where they are described."""
    return _ROLE.sub(_reference, html)


def _reference(match: re.Match[str]) -> str:
    short, name = match.groups()
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'


def _page(path: str) -> str | None:
    """The page of the site that a file of the repository is."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return None
