"""Pages of the site that are files of the project's root, so that nothing is written twice."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages; links into ``docs/`` and among them are turned."""
    root = Path(config.docs_dir).parent
    for name, page in _PAGES.items():
        if (root / name).exists():
            files.append(File.generated(config, page, content=_turned((root / name).read_text(encoding="utf-8"))))
    return files


def _turned(text: str) -> str:
    text = text.replace("](docs/", "](")
    for name, page in _PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text
