"""The documentation holds: blocks run, commands parse, links and names lead somewhere, the site builds."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tyro
from docs_blocks import PAGES, ROOT, Block, Command, anchors, blocks, code, commands, docstring_blocks, links, name

import activelabel
from activelabel.plugins import GROUPS

SCRIPTS = re.compile(r"(train|evaluate|examples/\w+)\.py$")
MODULES = re.compile(r"(activelabel|benchmarks)(\.|$)")
OPTIONAL = {"sb3_contrib", "tensordict", "torchrl", "umap", "atheris", "monai", "pydicom", "medmnist", "skactiveml"}
"""Packages that an example may import at its top and a tester need not have."""

with_python = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
with_commands = [page for page in PAGES if commands(page)]
with_examples = [path for path in sorted((ROOT / "activelabel").rglob("*.py")) if docstring_blocks(path)]


def run(block: Block, page: Path, names: dict[str, Any]) -> None:
    # Empty lines before it, so that a traceback names the line of the page.
    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", with_python, ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    missing: set[str] = set()
    for block in blocks(page):
        if block.language == "python":
            lacking = {package for package in block.needs if importlib.util.find_spec(package) is None}
            missing |= lacking
            if not lacking:
                run(block, page, names)
    if missing:
        pytest.skip(f"all but the blocks that need {', '.join(sorted(missing))} ran")


@pytest.mark.parametrize("path", with_examples, ids=name)
def test_examples_in_docstrings_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in docstring_blocks(path):
        run(Block(block.language, f"import gymnasium as gym\nimport activelabel\n{block.text}", 1), path, {})


class Parsed(BaseException):
    """A command's parser took its arguments; no Exception, so that the command does not handle it."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], None]:
    """Runs a command up to the end of its parser."""

    def stopping(parser: Callable[..., Any]) -> Callable[..., NoReturn]:
        def parsed(*arguments: Any, **named: Any) -> NoReturn:
            parser(*arguments, **named)
            raise Parsed

        return parsed

    monkeypatch.setattr(tyro, "cli", stopping(tyro.cli))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopping(argparse.ArgumentParser.parse_args))

    def parse(command: Command) -> None:
        words = command.words
        module = words[1] == "-m"
        monkeypatch.setattr(sys, "argv", list(words[2 if module else 1 :]))
        try:
            if module:
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except Parsed:
            return
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            pytest.skip(f"{error.name} is not installed")
        except SystemExit as error:
            if "--help" not in words:
                pytest.fail(f"exit status {error.code}")
            return
        pytest.fail("ended without a look at its arguments")

    return parse


def ours(command: Command) -> bool:
    words = command.words
    if not words[0].startswith("python") or len(words) < 2:
        return False
    return bool(MODULES.match(words[2]) if words[1] == "-m" else SCRIPTS.match(words[1]))


# A command's module may have been imported by another test.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package:RuntimeWarning")
@pytest.mark.parametrize("page", with_commands, ids=name)
# TorchRL's own modules, when they are imported, use what it has deprecated.
@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
def test_commands_are_valid(page: Path, parse: Callable[[Command], None], capsys: pytest.CaptureFixture[str]) -> None:
    skipped: list[str] = []
    for command in commands(page):
        if ours(command):
            try:
                parse(command)
            except pytest.skip.Exception as reason:
                skipped.append(str(reason))
            except (Exception, pytest.fail.Exception) as error:
                said = capsys.readouterr().err
                pytest.fail(f"{name(page)}:{command.line}: {' '.join(command.words)}: {error}\n{said}")
    if skipped:
        pytest.skip(f"all but these were parsed: {', '.join(skipped)}")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package:RuntimeWarning")
def test_commands_that_are_not_valid_fail(parse: Callable[[Command], None]) -> None:
    for words in ("train.py --updatez 3", "evaluate.py RUN --taks 3", "-m activelabel select --out a.csv"):
        with pytest.raises(pytest.fail.Exception, match="exit status 2"):
            parse(Command(("python", *words.split()), 1))
    with pytest.raises(BaseException, match=r"exit status|unknown"):
        parse(Command(("python", "train.py", "--preset", "kahter"), 1))


def test_extras_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or later reads TOML")
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for page in PAGES:
        for command in commands(page):
            for word in command.words if "install" in command.words else ():
                if found := re.fullmatch(r"(?:\.|activelabel)\[(.+)\]", word):
                    assert set(found[1].split(",")) <= known, f"{name(page)}:{command.line}: {word}"


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, something in one, or a group of entry points."""
    if dotted in GROUPS.values():
        return True
    parts, found = dotted.split("."), activelabel
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:i]))
            except ModuleNotFoundError:
                return part in getattr(found, "__annotations__", {})
            except ImportError:  # there it is; an extra that it needs is not installed
                return i == len(parts)
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_names_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name(page)} links {target}"
        if anchor.startswith("activelabel."):
            assert exists(anchor), f"{name(page)} links {target}"
        elif anchor:
            assert anchor in anchors(file), f"{name(page)} links {target}"
    for text, line in code(page):
        if found := re.match(r"activelabel(\.\w+)+", text):
            assert exists(found[0]), f"{name(page)}:{line} names {found[0]}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason='the site needs pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_site_describes_every_public_module(site: Path) -> None:
    said = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    modules = [module.name for module in pkgutil.walk_packages(activelabel.__path__, "activelabel.")]
    public = [module for module in modules if not any(part.startswith("_") for part in module.split("."))]
    assert len(public) > 50
    assert [module for module in public if f'id="{module}"' not in said] == []


def test_site_fetches_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        fetched = re.findall(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(https?:)?//', page.read_text("utf-8"))
        assert not fetched, page
