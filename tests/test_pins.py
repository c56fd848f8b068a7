"""Every dependency says from which version on it is wanted, and to which; or here is why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NO_UPPER = {
    **dict.fromkeys(
        ("joblib", "threadpoolctl", "rich", "tqdm", "matplotlib", "pillow"), "years without a break for us"
    ),
    "pyyaml": "safe_load alone is used, which has not changed since 5.1",
    "scikit-learn-extra": "its last release was in 2023",
    **dict.fromkeys(("dask", "ray"), "named by date, or released every few weeks; joblib's backend hides them"),
    **dict.fromkeys(
        ("pytest", "pytest-cov", "coverage", "hypothesis", "ruff", "mypy", "statsmodels", "setuptools"),
        "no user has it",
    ),
    **dict.fromkeys(("types-pyyaml", "atheris", "nox", "uv", "setuptools"), "no user has it"),
}
"""Dependencies without an upper bound, and the reason."""

NO_LOWER = {
    "types-pyyaml": "types of PyYAML 6, the oldest that is allowed",
    **dict.fromkeys(("numpy", "scikit-learn"), "an extra that only lowers the core's upper bound"),
}
"""The same without a lower one, in an extra."""


def requirements(root: Path) -> list[tuple[str, str, str]]:
    """Return the extra (empty for the core), the name, and the versions of every requirement but our own extras."""
    toml: Any = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    project = toml.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    listed = [("", text) for text in project["dependencies"]]
    listed += [(extra, text) for extra, texts in project["optional-dependencies"].items() for text in texts]
    found = []
    for extra, text in listed:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?\s*([^;]*)(?:;.*)?", text)
        assert match, text
        if match[1] != "activelabel":
            found.append((extra, match[1].lower(), match[2].strip()))
    return found


def test_every_dependency_has_bounds_or_a_reason(root: Path) -> None:
    listed = requirements(root)
    assert len(listed) > 30
    for extra, name, versions in listed:
        exact = "==" in versions
        assert exact or ">" in versions or (extra and name in NO_LOWER), f"{name} in '{extra}' has no lower bound"
        assert exact or "<" in versions or name in NO_UPPER, f"{name} in '{extra}' has no upper bound"


def test_every_reason_is_of_a_dependency(root: Path) -> None:
    listed = requirements(root)
    assert set(NO_UPPER) <= {name for _, name, versions in listed if "<" not in versions}
    assert set(NO_LOWER) <= {name for _, name, versions in listed if ">" not in versions}
