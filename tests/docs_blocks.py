"""What the documentation shows: code blocks, commands, links and names of the package, page by page."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"<!-- needs: ([^>]+?) -->\s*\Z")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"\w+=")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, the number of its first line, and the optional packages that it needs."""

    language: str
    text: str
    line: int
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command line and the number of its line."""

    words: tuple[str, ...]
    line: int


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page; ``<!-- needs: package -->`` before one names what it needs."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        needs = _NEEDS.search(text[: match.start()])
        indented = re.compile(rf"^{match[1]}", re.MULTILINE)
        packages = tuple(part.strip() for part in needs[1].split(",")) if needs else ()
        found.append(Block(match[2], indented.sub("", match[3]), text.count("\n", 0, match.start(3)) + 1, packages))
    return found


def docstring_blocks(path: Path) -> list[Block]:
    """The fenced blocks in the docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if "```python" not in text:
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    said = [ast.get_docstring(node) or "" for node in documented]
    return [Block(match[2], match[3], 1) for each in said for match in _FENCE.finditer(each)]


def prose(path: Path) -> str:
    """A page without its fenced blocks; their lines stay, empty."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text(encoding="utf-8"))


def code(path: Path) -> list[tuple[str, int]]:
    """What stands in backticks in the prose of a page, with the line's number."""
    lines = enumerate(prose(path).splitlines(), 1)
    return [(match[1], number) for number, line in lines for match in _CODE.finditer(line)]


def commands(path: Path) -> list[Command]:
    """The commands of a page: lines of blocks that are not Python, and code with options in the prose."""
    found = []
    for block in blocks(path):
        if block.language not in ("python", "yaml", "toml", "json", "ini"):
            joined = re.sub(r"\\\n\s*", " ", block.text)
            for number, line in enumerate(joined.splitlines(), block.line):
                found += _commands(line, number)
    for text, number in code(path):
        if " --" in text:
            found += _commands(text, number)
    return found


def _commands(line: str, number: int) -> list[Command]:
    if not re.search(r"\b(python3?|pip) ", line):
        return []
    pieces: list[list[str]] = [[]]
    for word in shlex.split(line.removeprefix("$ "), comments=True):
        if word in ("&&", ";", "|"):
            pieces.append([])
        elif pieces[-1] or not _ASSIGNMENT.match(word):  # VARIABLE=value before a command is not of it
            pieces[-1].append(word)
    return [Command(tuple(words), number) for words in pieces if words and re.search(r"(python3?|pip)$", words[0])]


def links(path: Path) -> list[str]:
    """The targets of a page's links and images that are not on the network."""
    targets = _LINK.findall(_CODE.sub("", prose(path)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in _HEADING.findall(prose(path))]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}
