"""Links of pages that are read outside of the repository: on a package index, or on the site of the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def repository_address() -> str | None:
    """``Repository`` of ``[project.urls]`` in pyproject.toml: ``https://github.com/OWNER/NAME``, say."""
    content = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^Repository = "([^"]+)"', content, flags=re.MULTILINE)
    return match[1] if match else None


def with_absolute_links(
    text: str, repository: str | None, folder: str = "", stays: Callable[[str], str | None] = lambda _: None
) -> str:
    """The text with links to files of the repository made absolute.

    Args:
        text: Markdown.
        repository: its address; files are at ``.../blob/main/PATH`` and ``.../raw/main/PATH``. None: links
            become plain text, and pictures are left out.
        folder: of the page in the repository, from which its links start.
        stays: from the path of a file in the repository to a link that stays relative, or None.
    """

    def absolute(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, anchor = target.partition("#")
        parts: list[str] = []
        for part in [*folder.split("/"), *path.split("/")]:
            parts = parts[:-1] if part == ".." else [*parts, part] if part not in ("", ".") else parts
        kept = stays("/".join(parts))
        if kept is not None:
            return f"{picture}[{words}]({kept}{hash_}{anchor})"
        if repository is None:
            return "" if picture else words
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository.rstrip('/')}/{kind}/main/{'/'.join(parts)}{hash_}{anchor})"

    return _LINK.sub(absolute, text)
