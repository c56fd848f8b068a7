"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from activelabel.data import Cohort, Source, SyntheticSettings, make_synthetic
from activelabel.envs.candidates import FEATURES, STATES

ROOT = Path(__file__).resolve().parents[1]

# The tests' tensors are tiny: more threads only wait for each other, for minutes where other programs run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nor do they open windows.
os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)

# No deadline: the first example pays for imports. Derandomised: a failure in CI is a failure everywhere.
settings.register_profile(
    "activelabel", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("activelabel")

TINY = {"k": 4, "pool": 20, "query": 12}
"""Sizes that keep an episode under a millisecond."""

ACTIVE: dict[str, Any] = {
    "budget": 12,
    "batch": 5,
    "pool": 60,
    "state_images": 10,
    "learner_arguments": {"epochs": 12},
}
"""Sizes that keep a step of ActiveLabel-v0 under some milliseconds; the budget is no multiple of the batch."""

EVERYTHING: dict[str, Any] = {
    "features": tuple(FEATURES),
    "state": (*STATES, "progress"),
    "observe": ("probabilities", "embeddings", "labelled"),
}
"""All that ActiveLabel-v0 can show at once."""


@pytest.fixture(scope="session", autouse=True)
def loggers_in_a_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stable-Baselines3 makes a folder for each logger, by default one that nobody removes."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("loggers"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A run sets torch's threads for the whole process; the next test has one again."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images; skips where there is none."""
    folder = Path(os.environ.get("ACTIVELABEL_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: {folder} is no folder (set ACTIVELABEL_DATA)")
    return folder


@pytest.fixture
def every_torch_warning() -> Iterator[None]:
    """Torch gives many warnings once a process: a test of one must not depend on those before it."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    """A small embedded cohort; eight conditions, No Finding, clinical variables and patients."""
    return make_synthetic(SyntheticSettings(n=3000, dim=8, rank=4))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort) -> str:
    """The file of that cohort."""
    path = tmp_path_factory.mktemp("data") / "cohort.npz"
    cohort.save(path)
    return str(path)


@pytest.fixture
def make_env(cohort: Cohort) -> Callable[..., gym.Env[Any, Any]]:
    """Makes a tiny SelectiveLabel env, without Gymnasium's wrappers."""

    def make(**changes: Any) -> gym.Env[Any, Any]:
        return gym.make("SelectiveLabel-v0", **{"cohort": cohort, "device": "cpu", **TINY, **changes}).unwrapped

    return make


@pytest.fixture
def make_vec(cohort: Cohort) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
    """Makes a tiny SelectiveLabel vector env of the given number of sub-environments."""

    def make(num_envs: int = 3, **changes: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
        arguments = {"cohort": cohort, "device": "cpu", **TINY, **changes}
        return gym.make_vec("SelectiveLabel-v0", num_envs=num_envs, **arguments)

    return make


@pytest.fixture(scope="session")
def blobs() -> Cohort:
    """Four overlapping classes in 6 dimensions, two images a patient; every tenth has no class, two, or a doubt."""
    rng = np.random.default_rng(0)
    n, classes = 700, ("A", "B", "C", "D")
    label = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    features = 1.5 * rng.standard_normal((4, 6))[label] + rng.standard_normal((n, 6))
    labels = np.eye(4, dtype=np.int8)[label]
    labels[0::30] = 0
    labels[10::30] = [1, 1, 0, 0]
    labels[20::30, 3] = -1
    return Cohort(labels, classes, features.astype(np.float32), patient=np.arange(n) // 2, source=Source(name="blobs"))


@pytest.fixture
def make_active(blobs: Cohort) -> Callable[..., gym.Env[Any, Any]]:
    """Makes a tiny ActiveLabel env, without Gymnasium's wrappers."""

    def make(**changes: Any) -> gym.Env[Any, Any]:
        return gym.make("ActiveLabel-v0", **{"cohort": blobs, "device": "cpu", **ACTIVE, **changes}).unwrapped

    return make


@pytest.fixture
def make_active_vec(blobs: Cohort) -> Callable[..., gym.vector.VectorEnv[Any, Any, Any]]:
    """Makes a tiny ActiveLabel vector env of the given number of sub-environments."""

    def make(num_envs: int = 3, **changes: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
        arguments = {"cohort": blobs, "device": "cpu", **ACTIVE, **changes}
        return gym.make_vec("ActiveLabel-v0", num_envs=num_envs, **arguments)

    return make
