"""Several data sets played as one environment, against each of them played alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ACTIVE
from gymnasium.vector import AutoresetMode
from run_files import same_tensors
from stable_baselines3.common.callbacks import BaseCallback

from activelabel.agents import DDQN
from activelabel.agents.checkpoint import read_model
from activelabel.data import Cohort
from activelabel.data.cohort import Source
from activelabel.envs import ActiveLabelVectorEnv, MixedVectorEnv
from activelabel.errors import CheckpointError, SettingsError

SIZES = (2, 1, 3)


@pytest.fixture(scope="module")
def cohorts(blobs: Cohort) -> list[Cohort]:
    """Four classes in 6 dimensions, three in 9, and five in 4."""
    found = [blobs]
    for classes, dim in ((3, 9), (5, 4)):
        rng = np.random.default_rng(dim)
        label = rng.integers(classes, size=600)
        features = 1.5 * rng.standard_normal((classes, dim))[label] + rng.standard_normal((600, dim))
        names = tuple("abcde"[:classes])
        labels = np.eye(classes, dtype=np.int8)[label]
        found.append(Cohort(labels, names, features.astype(np.float32), source=Source(name=f"of {classes}")))
    return found


def made(cohorts: list[Cohort], *each: dict[str, Any], **changes: Any) -> list[ActiveLabelVectorEnv]:
    """Return an env of each cohort; ``each`` are further changes of one."""
    own = each or ({},) * len(cohorts)
    every = {"device": "cpu", **ACTIVE, **changes}
    return [
        ActiveLabelVectorEnv(n, cohort, **{**every, **more})
        for n, cohort, more in zip(SIZES, cohorts, own, strict=False)
    ]


def rows(tree: Any, i: int) -> Any:
    """Return what a tree of arrays holds of sub-environment ``i``, of an info only what there is."""
    if not isinstance(tree, dict):
        return tree[i]
    return {
        name: rows(value, i)
        for name, value in tree.items()
        if not name.startswith("_") and tree.get(f"_{name}", [True] * (i + 1))[i]
    }


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("reward", ["change", "target"])
def test_each_part_is_played_as_alone(cohorts: list[Cohort], mode: AutoresetMode, reward: str) -> None:
    """With ``reward="target"`` episodes of the same step end in some parts and not in others."""
    changes = {"reward": reward, "tolerance": 0.85, "batch": 3, "autoreset_mode": mode}
    mixed, alone = MixedVectorEnv(made(cohorts, **changes)), made(cohorts, **changes)
    starts = np.cumsum([0, *SIZES])
    rng = np.random.default_rng(0)
    told: set[str] = set()

    def compare(together: Any, apart: list[Any]) -> None:
        for start, own, n in zip(starts, apart, SIZES, strict=False):
            for i in range(n):
                for a, b in zip(together, own, strict=True):
                    np.testing.assert_equal(rows(a, start + i), rows(b, i))
        told.update(rows(together[-1], 0))

    first = [part.reset(seed=7 + int(start)) for part, start in zip(alone, starts, strict=False)]
    compare(mixed.reset(seed=7), first)
    for _ in range(11):
        actions = rng.integers(60, size=(6, 3))
        played = mixed.step(actions)
        assert mixed.observation_space.contains(played[0])
        compare(played, [part.step(actions[s : s + part.num_envs]) for part, s in zip(alone, starts, strict=False)])
        np.testing.assert_array_equal(mixed.action_masks(), np.concatenate([part.action_masks() for part in alone]))
        if mode == AutoresetMode.DISABLED and played[2].any():
            with pytest.raises(RuntimeError, match="for every environment whose episode is over"):
                mixed.step(actions)
            over, chosen = played[2], rng.integers(100, size=6)
            own = [
                part.reset(
                    options={"reset_mask": over[s : s + part.num_envs], "episode": chosen[s : s + part.num_envs]}
                )
                for part, s in zip(alone, starts, strict=False)
            ]
            compare(mixed.reset(options={"reset_mask": over, "episode": chosen}), own)
    assert {"initial_ids", "candidate_ids"} <= told
    assert ("final_info" in told) == (mode == AutoresetMode.SAME_STEP)


def test_it_goes_on_where_it_was_saved(cohorts: list[Cohort]) -> None:
    mixed, other = (MixedVectorEnv(made(cohorts)) for _ in range(2))
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        mixed.step(np.zeros((6, 5), int))
    with pytest.raises(SettingsError, match="the first reset must be of all"):
        mixed.reset(options={"reset_mask": np.array([True, True, False, True, True, True])})
    mixed.reset(seed=list(range(6)))
    rng = np.random.default_rng(0)
    actions = [rng.integers(60, size=(6, 5)) for _ in range(5)]
    seen = [mixed.step(action) for action in actions[:4]]
    saved = json.loads(json.dumps(mixed.state_dict()))
    np.testing.assert_equal(other.load_state_dict(saved), seen[-1][0])
    np.testing.assert_equal(other.step(actions[4]), mixed.step(actions[4]))
    with pytest.raises(SettingsError, match="the saved state is of 3 data sets, this is 2"):
        MixedVectorEnv(made(cohorts[:2])).load_state_dict(saved)
    before = mixed.state_dict()
    for bad in (np.zeros((5, 5), int), np.full((6, 5), 60), np.array([[0] * 5] * 5 + [[0, 0, 0, 0, -1]])):
        with pytest.raises(SettingsError, match=r"actions must be|is not one of the 60 candidates"):
            mixed.step(bad)
    with pytest.raises(SettingsError, match="5 seeds for 6 environments"):
        mixed.reset(seed=[0] * 5)
    assert mixed.state_dict() == before
    mixed.close()


def test_a_frame_of_each(cohorts: list[Cohort]) -> None:
    mixed = MixedVectorEnv(made(cohorts[:2]), render_mode="rgb_array")
    mixed.reset(seed=0)
    frames = mixed.render()
    assert frames is not None
    assert [frame.shape for frame in frames] == [(540, 960, 3)] * 3
    assert not np.array_equal(frames[1], frames[2])
    mixed.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 50}, r"candidates=50 of part 1 \(of 3\) is not the 60 of part 0 \(blobs\).* Give a pool"),
        ({"batch": 4}, "batch=4 of part 1"),
        ({"budget": 10}, "budget=10 of part 1"),
        ({"features": ("margin", "nearest", "density")}, "features=.* of part 1"),
        ({"state": ("margin",)}, "unknown entry of state"),
        ({"state": ("probability", "progress")}, r"state=\('probability', 'progress'\) of part 1"),
        ({"state_images": 9}, "state_images=9 of part 1"),
        ({"distance": "cosine"}, "distance='cosine' of part 1"),
        ({"space": "data"}, "space='data' of part 1"),
        ({"observe": ("probabilities",)}, "observe=.* of part 1"),
        ({"autoreset_mode": "Disabled"}, "autoreset_mode='Disabled' of part 1"),
    ],
    ids=str,
)
def test_parts_that_differ_are_refused(cohorts: list[Cohort], change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        MixedVectorEnv(made(cohorts, {}, change))


def test_observations_that_differ_in_size_are_refused(cohorts: list[Cohort]) -> None:
    with pytest.raises(SettingsError, match=r"shape of observation 'probabilities'=\(60, 3\) of part 1"):
        MixedVectorEnv(made(cohorts, observe=("probabilities",)))
    with pytest.raises(SettingsError, match="parts is empty"):
        MixedVectorEnv([])
    assert MixedVectorEnv(made([cohorts[0]] * 2, observe=("labelled",))).num_envs == 3


def agent(env: Any) -> DDQN:
    sizes: dict[str, Any] = {"warm_start_episodes": 6, "gradient_steps": 3, "batch_size": 8, "next_candidates": 4}
    return DDQN(env=env, seed=0, device="cpu", policy_kwargs={"hidden": [8]}, **sizes)


def test_a_resumed_training_equals_an_uninterrupted_one(cohorts: list[Cohort], tmp_path: Path) -> None:
    """Five rounds at once, and what was written after three of them with two more."""

    class Saving(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            assert isinstance(self.model, DDQN)
            if len(self.model.returns) == 3:
                self.model.save(tmp_path / "part")

    whole = agent(MixedVectorEnv(made(cohorts))).learn(5 * 6 * 3, callback=Saving())
    resumed = DDQN.load(tmp_path / "part", MixedVectorEnv(made(cohorts)), "cpu", force_reset=False)
    resumed.learn(2 * 6 * 3, reset_num_timesteps=False)
    for name, model in (("whole", whole), ("resumed", resumed)):
        model.save(tmp_path / name)
    (a, tensors), (b, others) = (read_model(tmp_path / f"{name}.zip", "DDQN") for name in ("whole", "resumed"))
    assert same_tensors(tensors, others)
    assert (a["returns"], a["env"]) == (b["returns"], b["env"])
    assert len(a["env"][0]["parts"]) == 3
    with pytest.raises((SettingsError, CheckpointError)):
        DDQN.load(tmp_path / "part", made(cohorts)[0], "cpu", force_reset=False)
