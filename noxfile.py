"""Checks that need other interpreters or other versions than those at hand; `nox --list` names them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
# uv makes an environment in seconds where pip takes minutes, and knows the oldest allowed versions.
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["resolve"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
"""What the package says it runs on."""
TOGETHER = ("baselines", "images", "contrib", "torchrl", "umap", "dask", "ray", "test", "fuzz", "docs", "dev")
"""The extras that fit into one environment."""
APART = {"sklearn-extra": "tests/test_baselines.py", "modal": "tests/test_modal_parity.py"}
"""The extras that hold a package of the core back, an environment each, and what tests them."""
CI = ".[test,baselines,images,contrib,docs]"
"""What .ci/run installs."""
SHOWN = ("numpy", "scikit-learn", "torch", "gymnasium", "stable-baselines3")
"""The packages whose versions are printed."""

# Old packages beside newer ones of their own dependencies warn of what neither we nor a user can mend.
OLD_WARNINGS = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")


def resolved(session: nox.Session, python: str, *options: str, extras: tuple[str, ...]) -> str:
    """What pyproject.toml resolves to, from released wheels alone: versions of `SHOWN`, and the number of packages."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    command += ["--python-version", python, *options, *(f"--extra={extra}" for extra in extras), "pyproject.toml"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "requirements.txt")
        session.run(*command, "--output-file", str(out), external=True)
        pins = dict(line.split("==") for line in out.read_text().splitlines() if "==" in line)
    return f"{', '.join(f'{name} {pins[name]}' for name in SHOWN)} ({len(pins)} packages)"


def suite(session: nox.Session, *options: str) -> None:
    """Run the tests; what follows `--` on the command line goes to pytest."""
    session.run("python", "-m", "pytest", "-q", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(venv_backend="none")
def resolve(session: nox.Session) -> None:
    """Every Python has released wheels for every extra, and for the oldest allowed versions."""
    found = []
    for python in PYTHONS:
        found.append(f"{python}, all that fit together: {resolved(session, python, extras=TOGETHER)}")
        found += [f"{python}, {name}: {resolved(session, python, extras=('test', name))}" for name in APART]
        oldest = resolved(session, python, "--resolution", "lowest-direct", extras=("test", "contrib"))
        found.append(f"{python}, oldest: {oldest}")
    session.log("resolved:\n%s", "\n".join(found))


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The tests with the newest allowed versions; a Python that is not installed is skipped."""
    session.install("--upgrade", "-e", CI)
    suite(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The tests with the oldest allowed versions; without `baselines`, whose package needs numpy 2."""
    session.install("--resolution", "lowest-direct", "-e", ".[test,contrib]")
    suite(session, *OLD_WARNINGS)


@nox.session(python="3.11")
@nox.parametrize("extra", list(APART))
def apart(session: nox.Session, extra: str) -> None:
    """The tests of the second K-Medoids backend, and of parity with modAL."""
    session.install("-e", f".[test,{extra}]")
    suite(session, APART[extra])


@nox.session
def audit(session: nox.Session) -> None:
    """No known vulnerability in the newest allowed versions; says so where nobody can be asked."""
    session.install("pip-audit>=2.9")
    folder = Path(session.create_tmp())
    pins, control = folder / "pins.txt", folder / "control.txt"
    extras = [f"--extra={extra}" for extra in TOGETHER]
    command = ("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *extras, "pyproject.toml")
    session.run(*command, "--output-file", str(pins), external=True)
    # pip-audit passes over what its service does not answer for: a version with a known hole shows whether it does.
    control.write_text("pyyaml==5.3\n", encoding="utf-8")
    if not vulnerabilities(session, control):
        session.skip("not audited: no service of known vulnerabilities answers here")
    found = vulnerabilities(session, pins)
    if found:
        session.error(f"known vulnerabilities: {found}")


def vulnerabilities(session: nox.Session, pins: Path) -> dict[str, list[str]]:
    """Return what is known of the versions of a requirements file, by package; nothing where nobody answers."""
    command = ("pip-audit", "--format", "json", "--no-deps", "--disable-pip", "--requirement", str(pins))
    # 1: there are some, or the service was not reached; what it says besides goes to stderr.
    said = session.run(*command, silent=True, success_codes=[0, 1], stderr=subprocess.DEVNULL)
    if not said:
        return {}
    packages = json.loads(str(said))["dependencies"]
    return {f"{p['name']} {p['version']}": [v["id"] for v in p["vulns"]] for p in packages if p.get("vulns")}
