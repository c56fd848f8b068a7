"""What a user installs: the built wheel, the public names and their docstrings, and what pyproject.toml promises."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import activelabel

INFO = f"activelabel-{activelabel.__version__}.dist-info/"
PACKAGES = ["activelabel", *(m.name for m in pkgutil.walk_packages(activelabel.__path__, "activelabel.") if m.ispkg)]


def sources(root: Path) -> list[Path]:
    return sorted((root / "activelabel").rglob("*.py"))


def documented_constants(path: Path) -> set[str]:
    """The names of a module's own assignments that a docstring follows."""
    body = ast.parse(path.read_text()).body
    named = set()
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            named |= {target.id for target in targets if isinstance(target, ast.Name)}
    return named


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public functions and properties that a class of ours defines itself."""
    for name, value in vars(cls).items():
        kinds = (property, staticmethod, classmethod)
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds)):
            yield name, value


@pytest.fixture(scope="module")
def constants(root: Path) -> set[str]:
    """The names that are assigned and documented in any module of ours."""
    return {name for path in sources(root) for name in documented_constants(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_offers_is_there_and_documented(package: str, constants: set[str]) -> None:
    module = importlib.import_module(package)
    assert (module.__doc__ or "").strip()
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            # Its own docstring: inspect.getdoc would be content with what it inherits.
            assert (value.__doc__ or "").strip(), f"{name} has no docstring"
            assert not [member for member, function in members(value) if not inspect.getdoc(function)], name
        elif callable(value):
            assert (value.__doc__ or "").strip(), f"{name} has no docstring"
        else:
            assert name in constants | {"__version__"}, f"no docstring follows {name} where it is assigned"
    assert len(set(module.__all__)) == len(module.__all__)


def test_packages_say_what_they_offer() -> None:
    """A package without `__all__` would pass the test above whatever it held."""
    assert not [name for name in PACKAGES if not hasattr(importlib.import_module(name), "__all__")]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel of the package, built from a copy and without a network."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(root / "activelabel", copy / "activelabel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    with zipfile.ZipFile(copy / done.stdout.split()[-1]) as archive:
        yield archive


def test_wheel_holds_all_of_the_package(wheel: zipfile.ZipFile, root: Path) -> None:
    """`py.typed`, presets, studies and the report's assets too, and nothing that is not the package."""
    files = {path.relative_to(root) for path in (root / "activelabel").rglob("*") if path.is_file()}
    expected = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert "activelabel/py.typed" in expected
    assert {name for name in wheel.namelist() if not name.startswith(INFO)} == expected
    assert f"{INFO}licenses/LICENSE" in wheel.namelist()


@pytest.fixture(scope="module")
def described(wheel: zipfile.ZipFile) -> str:
    """What the wheel says of itself to an installer."""
    return wheel.read(f"{INFO}METADATA").decode()


@pytest.fixture(scope="module")
def extras(described: str) -> set[str]:
    """The names that `pip install "activelabel[...]"` takes."""
    return set(re.findall(r"^Provides-Extra: (.+)$", described, re.MULTILINE))


def test_wheel_describes_itself(described: str, extras: set[str], wheel: zipfile.ZipFile) -> None:
    assert "\nLicense-Expression: Apache-2.0\n" in described
    assert "\nRequires-Python: >=3.10\n" in described
    assert {"baselines", "contrib", "docs", "images", "test"} <= extras
    scripts = wheel.read(f"{INFO}entry_points.txt").decode()
    named = re.findall(r"= (\S+):(\S+)", scripts)
    assert named
    for module, function in named:
        assert callable(getattr(importlib.import_module(module), function))


def test_messages_name_extras_that_exist(extras: set[str], root: Path) -> None:
    """Every `pip install "activelabel[...]"` of the package's own messages can be typed."""
    found = [name for path in sources(root) for name in re.findall(r"activelabel\[([a-z,-]+)\]", path.read_text())]
    assert {name for names in found for name in names.split(",")} <= extras
    assert found
