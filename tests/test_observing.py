"""Images and costs in the observation: each wrapper against the environment that it wraps, and one form against the
other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
from conftest import ACTIVE, TINY
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from wrapped_play import B, Wrapped

from activelabel.data import Cohort
from activelabel.envs import observing
from activelabel.envs.observing import ImageObservation, LabelCost, VectorImageObservation, VectorLabelCost
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import VectorFlattenCandidates
from activelabel.errors import DataError, SettingsError

ONE = {**ACTIVE, "batch": 1, "budget": 4}
FEW = {**ACTIVE, "candidates": 9, "observe": ("embeddings",)}
DEAR = {"oracle": "annotators", "oracle_arguments": {"errors": [0.5, 0.0], "costs": [1, 3], "abstain": [0.3, 0]}}
BY_CLASS: dict[str, float] = {"A": 0.5, "B": 0.25, "C": 0.0, "D": 2.0}
OF_COHORT = "of the cohort's classes"
BY_ROW = "by row"

CASES: dict[str, tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "images, selective": ("SelectiveLabel-v0", TINY, [("ImageObservation", {})]),
    "images instead, selective": ("SelectiveLabel-v0", TINY, [("ImageObservation", {"replace": True})]),
    "images, active": ("ActiveLabel-v0", ONE, [("ImageObservation", {"size": 3})]),
    "images instead, few candidates": ("ActiveLabel-v0", FEW, [("ImageObservation", {"replace": True})]),
    "one cost, selective": ("SelectiveLabel-v0", TINY, [("LabelCost", {"costs": 0.01})]),
    "by row, selective, dear": ("SelectiveLabel-v0", TINY | DEAR, [("LabelCost", {"costs": BY_ROW})]),
    "by class, selective": ("SelectiveLabel-v0", TINY, [("LabelCost", {"costs": OF_COHORT})]),
    "one cost, one label a step": ("ActiveLabel-v0", ONE, [("LabelCost", {"costs": 0.01})]),
    "by row, few candidates": ("ActiveLabel-v0", FEW, [("LabelCost", {"costs": BY_ROW})]),
    "by class, active, dear": ("ActiveLabel-v0", ACTIVE | DEAR, [("LabelCost", {"costs": BY_CLASS})]),
    "both": ("ActiveLabel-v0", ACTIVE, [("ImageObservation", {}), ("LabelCost", {"costs": BY_ROW})]),
}
"""Environment, its settings, and the wrappers around it from the inside out."""


def with_images(cohort: Cohort) -> Cohort:
    """Return the cohort with an image of 5 x 4 for each row, no two alike."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(cohort), 5, 4, 3), dtype=np.uint8)
    return replace(cohort, images=images)


def row_costs(cohort: Cohort) -> list[float]:
    return (np.arange(len(cohort)) % 7 / 8).tolist()


class Case(Wrapped):
    """A case by name; its images, and costs that stand for what the cohort has."""

    def __init__(self, name: str, cohort: Cohort, blobs: Cohort) -> None:
        env, settings, around = CASES[name]
        self.cohort = with_images(cohort if env == "SelectiveLabel-v0" else blobs)
        known = {BY_ROW: row_costs(self.cohort), OF_COHORT: {n: i / 4 for i, n in enumerate(self.cohort.classes)}}
        given = [(n, {k: known.get(v, v) if isinstance(v, str) else v for k, v in a.items()}) for n, a in around]
        super().__init__(observing, env, {"cohort": self.cohort, "device": "cpu", **settings}, given)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, cohort: Cohort, blobs: Cohort) -> Case:
    return Case(request.param, cohort, blobs)


# That it is wrapped is what the check finds; everything else that it warns of is an error.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
def test_gymnasium_has_no_complaint(case: Case) -> None:
    check_env(case.single())


# A set of candidates is a matrix, and of images an array of four dimensions, on purpose.
@pytest.mark.filterwarnings("ignore:Your observation .* has an unconventional shape:UserWarning")
def test_stable_baselines3_has_no_complaint(case: Case) -> None:
    sb3_check_env(case.single())


def test_it_is_made_again_from_its_spec(case: Case) -> None:
    env = case.single()
    again = gym.make(env.spec)
    np.testing.assert_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])


def test_no_global_generator_is_used(case: Case) -> None:
    with reference.global_rng_untouched():
        for env in (case.single(), case.vector()):
            env.reset(seed=0)
            env.action_space.seed(0)
            env.step(env.action_space.sample())


def test_a_sub_environment_equals_the_single_one(case: Case) -> None:
    vector, singles = case.vector(), [case.single() for _ in range(B)]
    vector.action_space.seed(2)
    assert vector.single_observation_space == singles[0].observation_space
    observations, infos = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i) for i, env in enumerate(singles)]
    for _ in range(9):
        assert vector.observation_space.contains(observations)
        for i, (observation, info) in enumerate(expected):
            np.testing.assert_equal({name: v[i] for name, v in observations.items()}, observation)
            np.testing.assert_equal({name: infos[name][i] for name in info}, info)
            assert all(infos[f"_{name}"][i] for name in info)
        actions = vector.action_space.sample()
        observations, rewards, terminated, _, infos = vector.step(actions)
        for part in (infos, infos.get("final_info", {})):
            if "label_cost" in part:
                np.testing.assert_array_equal(part["_label_cost"], part["_labels"])
        for i, env in enumerate(singles):
            observation, reward, over, _, info = env.step(actions[i])
            assert env.observation_space.contains(observation)
            assert (reward, over) == (rewards[i], terminated[i])
            if over:
                np.testing.assert_equal(infos["final_obs"][i], observation)
                np.testing.assert_equal({name: infos["final_info"][name][i] for name in info}, info)
                observation, info = env.reset()
            expected[i] = observation, info


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_show_and_cost_the_same(case: Case, mode: AutoresetMode) -> None:
    env, other = case.vector(autoreset_mode=mode), case.vector()
    for e in (env, other):
        e.action_space.seed(0)
    assert env.autoreset_mode is mode
    ours, theirs = env.reset(seed=1), other.reset(seed=1)
    for _ in range(8):
        np.testing.assert_equal(ours[0], theirs[0])
        actions = other.action_space.sample()
        ours, theirs = env.step(actions), other.step(actions)
        np.testing.assert_equal(ours[1:4], theirs[1:4])
        over = np.asarray(theirs[2])
        for i in np.flatnonzero(over):
            np.testing.assert_equal({name: v[i] for name, v in ours[0].items()}, theirs[4]["final_obs"][i])
        if over.all():
            ours = env.reset() if mode is AutoresetMode.DISABLED else env.step(actions)
        elif over.any():  # from here on the two play different episodes side by side
            break


# -- images -----------------------------------------------------------------------------------------------------------


def shown_rows(env: Any, info: dict[str, Any]) -> np.ndarray:
    """The candidates' rows of the cohort, by the environment's own words."""
    if "candidate_ids" in info:
        return np.asarray(info["candidate_ids"])
    return np.asarray(env.unwrapped.engine.tasks([info["task"]]).pool[0])


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("images", "both"))])
def test_the_images_are_those_of_the_candidates_at_every_step(name: str, cohort: Cohort, blobs: Cohort) -> None:
    case = Case(name, cohort, blobs)
    small = case.wrappers[0][1].get("size")
    env = case.single()
    env.action_space.seed(0)
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            rows = shown_rows(env, info)
            images = np.asarray(case.cohort.images)[rows]
            if small is None:
                np.testing.assert_array_equal(observation["images"], images)
            else:
                assert observation["images"].shape == (len(rows), small, small, 3)
                assert len(np.unique(observation["images"], axis=0)) == len(rows)
            observation, _, over, _, info = env.step(env.action_space.sample())


def test_the_embeddings_can_be_left_out(cohort: Cohort, blobs: Cohort) -> None:
    for name, gone in (("images instead, selective", "pool"), ("images instead, few candidates", "embeddings")):
        case = Case(name, cohort, blobs)
        assert gone in case.inside().observation_space.spaces
        env = case.single()
        assert gone not in env.observation_space.spaces
        assert gone not in env.reset(seed=0)[0]


@pytest.mark.parametrize("env_id", ["SelectiveLabel-v0", "ActiveLabel-v0"])
def test_a_cohort_without_images_is_refused(env_id: str, make_env: Callable[..., Any], make_active: Any) -> None:
    env = make_env() if env_id == "SelectiveLabel-v0" else make_active()
    with pytest.raises(DataError, match="no images to observe"):
        ImageObservation(env)


def test_grey_images_have_one_channel_and_sizes_must_agree(blobs: Cohort) -> None:
    rng = np.random.default_rng(0)
    grey = replace(blobs, images=rng.integers(0, 256, (len(blobs), 6, 6), dtype=np.uint8))
    env = gym.make("ActiveLabel-v0", cohort=grey, device="cpu", **ONE)
    assert ImageObservation(env).observation_space["images"].shape == (60, 6, 6, 1)
    uneven = [image[: 4 + i % 2] for i, image in enumerate(np.asarray(grey.images))]
    env = gym.make("ActiveLabel-v0", cohort=replace(blobs, images=uneven), device="cpu", **ONE)
    with pytest.raises(SettingsError, match="images of 2 sizes"):
        ImageObservation(env)
    assert ImageObservation(env, size=4).observation_space["images"].shape == (60, 4, 4, 1)


# -- costs ------------------------------------------------------------------------------------------------------------


def slow_cost(case: Case, info: dict[str, Any]) -> float:
    """What a step costs, image by image."""
    costs = case.wrappers[-1][1]["costs"]
    paid, total = set(), 0.0
    for image, label in zip(info["ids"].tolist(), info["labels"].tolist(), strict=True):
        if label < 0 or image in paid:
            continue
        paid.add(image)
        if isinstance(costs, float):
            total += costs
        elif isinstance(costs, list):
            total += costs[image]
        elif case.id == "ActiveLabel-v0":
            total += list(costs.values())[label]
        else:
            assert case.cohort.normal is not None
            total += costs[info["condition"] if label else case.cohort.classes[case.cohort.normal]]
    return total


COSTS = [name for name, (_, _, wrappers) in CASES.items() if wrappers[-1][0] == "LabelCost"]


@pytest.mark.parametrize("name", COSTS)
def test_each_answer_costs_once(name: str, cohort: Cohort, blobs: Cohort) -> None:
    case = Case(name, cohort, blobs)
    env, inside = case.single(), case.inside()
    env.action_space.seed(0)
    seen = set()
    for seed in range(8):
        env.reset(seed=seed)
        inside.reset(seed=seed)
        over = False
        while not over:
            action = env.action_space.sample()
            if np.ndim(action) and seed % 2:
                action[1] = action[0]  # a repeated index
            _, reward, over, _, info = env.step(action)
            _, whole, _, _, known = inside.step(action)
            assert info["label_cost"] == pytest.approx(slow_cost(case, known), abs=1e-6)
            assert reward == pytest.approx(whole - info["label_cost"], abs=1e-12)
            seen.add(info["label_cost"])
    assert len(seen) > 1


@pytest.mark.parametrize("name", COSTS)
def test_the_costs_are_shown_of_each_candidate_or_class(name: str, cohort: Cohort, blobs: Cohort) -> None:
    case = Case(name, cohort, blobs)
    env, costs = case.single(), case.wrappers[-1][1]["costs"]
    observation, info = env.reset(seed=2)
    if isinstance(costs, dict):
        assert observation["class_costs"].tolist() == list(costs.values())
        assert "costs" not in observation
    else:
        rows = shown_rows(env, info)
        expected = np.full(len(rows), costs) if isinstance(costs, float) else np.array(costs)[rows]
        np.testing.assert_array_equal(observation["costs"], expected.astype(np.float32))


def test_a_label_that_is_not_made_costs_nothing(make_active: Callable[..., Any]) -> None:
    env = LabelCost(make_active(batch=1, budget=4), 0.5)
    env.reset(seed=0)
    _, _, _, _, first = env.step(7)
    _, reward, _, _, again = env.step(7)
    assert (first["label_cost"], again["label_cost"], reward) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (-0.1, "not negative"),
        (float("nan"), "finite"),
        ([0.1, 0.2], r"shape \(2,\); give one number, or 700"),
        ("dear", "must be numbers"),
        ({"A": 1, "B": 1, "C": 1}, "has no D"),
        ({**BY_CLASS, "E": 1.0}, "unknown class in costs 'E'"),
        ({**BY_CLASS, "D": -1.0}, "not negative"),
    ],
)
def test_costs_that_make_no_sense_are_refused(
    costs: Any, message: str, make_active: Callable[..., Any], make_active_vec: Callable[..., Any]
) -> None:
    for wrapper, make in ((LabelCost, make_active), (VectorLabelCost, make_active_vec)):
        with pytest.raises(SettingsError, match=message):
            wrapper(make(), costs)


# -- both -------------------------------------------------------------------------------------------------------------


def test_foreign_and_flattened_environments_are_refused(make_vec: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match="is not of gym"):
        LabelCost(gym.make("CartPole-v1"), 0.1)
    with pytest.raises(SettingsError, match="flatten it outside"):
        VectorLabelCost(VectorFlattenCandidates(make_vec()), 0.1)


def test_stable_baselines3_trains_with_images_and_costs(blobs: Cohort) -> None:
    envs = gym.make_vec("ActiveLabel-v0", num_envs=2, cohort=with_images(blobs), device="cpu", **ONE)
    adapted = GymnasiumVecEnv(VectorLabelCost(VectorImageObservation(envs), 0.01))
    model = PPO("MultiInputPolicy", adapted, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu").learn(16)
    assert model.num_timesteps == 16
    assert {"images", "costs"} <= set(model.observation_space.spaces)  # type: ignore[attr-defined]
