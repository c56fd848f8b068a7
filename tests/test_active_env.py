"""``ActiveLabel-v0``: the single env; its numbers are compared with a slow reference in ``test_candidates.py``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from active_reference import listed, play
from conftest import EVERYTHING
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from activelabel.data import Cohort
from activelabel.data.episodes import PARTS
from activelabel.envs import RunningEpisodes
from activelabel.errors import SettingsError

Make = Callable[..., Any]


def free(info: dict[str, Any], n: int = 5) -> np.ndarray:
    """The first candidates that may be labelled."""
    return np.flatnonzero(info["action_mask"])[:n]


# -- spaces ------------------------------------------------------------------------------------------------------------


def test_spaces(make_active: Make) -> None:
    env = make_active()
    assert isinstance(env.observation_space, Dict)
    assert set(env.observation_space) == {"state", "candidates", "action_mask"}
    assert env.observation_space["state"] == Box(0, 1, (11,), np.float32)
    candidates = env.observation_space["candidates"]
    assert (candidates.shape, candidates.dtype) == ((60, 3), np.float32)
    assert (candidates.low == 0).all()
    assert (candidates.high[:, 0] == 1).all()
    # No two images are farther apart than the largest norm on both sides.
    assert (candidates.high[:, 1:] == np.float32(env.engine.distance_bound)).all()
    assert env.observation_space["action_mask"] == MultiBinary(60)
    assert env.action_space == MultiDiscrete([60] * 5)
    one = make_active(batch=1, candidates=15, distance="cosine", state=["per-class"])
    assert one.action_space == Discrete(15)
    assert one.observation_space["candidates"].high.max() == 2
    assert one.observation_space["state"].shape == (40,)


def test_everything_that_can_be_observed(make_active: Make, blobs: Cohort) -> None:
    env = make_active(**EVERYTHING, components=4)
    shapes = {name: space.shape for name, space in env.observation_space.items()}
    assert shapes["probabilities"] == (60, 4)
    assert shapes["embeddings"] == (60, 4)
    assert shapes["labelled"] == (4 + 12, 4)
    assert shapes["labels"] == (4 + 12,)
    observation, info = env.reset(seed=0)
    rows, known = info["candidate_ids"], info["initial_ids"].tolist()
    latent = env.engine.space.latent(np.arange(len(blobs)))
    np.testing.assert_array_equal(observation["embeddings"], latent[rows])
    for action in (free(info), [0, 0, 1, 2, 3], free(info)[:1].repeat(5)):
        there = observation["labels"] >= 0
        np.testing.assert_array_equal(observation["labelled"][there], latent[known])
        np.testing.assert_array_equal(observation["labels"][there], blobs.labels[known].argmax(axis=1))
        assert (observation["labelled"][~there] == 0).all()
        observation, *_, info = env.step(action)
        known += info["ids"][info["ids"] >= 0].tolist()
    assert len(known) == info["n_labelled"] == (observation["labels"] >= 0).sum()


def test_latent_features_have_unit_mean_squared_norm_on_the_training_part(make_active: Make) -> None:
    for changes in ({}, {"components": 3}, {"standardize": False}):
        env = make_active(**changes)
        train = env.engine.space.latent(env.engine.splits.train)
        assert (train**2).sum(axis=1).mean() == pytest.approx(1, abs=1e-5)
    # Components are those of the training part: other images do not move them.
    assert train.dtype == np.float32


# -- episodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_four_parts_share_no_patient(make_active: Make, blobs: Cohort, split: str) -> None:
    assert blobs.patient is not None
    engine = make_active(split=split, fractions=(0.5, 0.4, 0.1)).engine
    patients = [set(blobs.patient[engine.sampler.rows[part]].tolist()) for part in PARTS]
    assert sum(map(len, patients)) == len(set.union(*patients))
    others = np.setdiff1d(np.arange(len(blobs)), engine.splits.rows(split))
    assert not set.union(*patients) & set(blobs.patient[others].tolist())


def test_the_infos_hold_what_is_documented(make_active: Make) -> None:
    always = {"episode_id", "action_mask", "candidate_ids", "reward_accuracy", "n_labelled"}
    played = play(make_active())
    _, start = played[0]
    assert set(start) == always | {"initial_ids"}
    assert start["initial_ids"].shape == (4,)
    for *_, info in played[1:-1]:
        assert set(info) == always | {"ids", "labels"}
    end = played[-1][-1]
    assert set(end) == always | {"ids", "labels", "test_curve", "curve_labels"}
    for info in (start, *(step[-1] for step in played[1:])):
        assert info["action_mask"].dtype == np.int8
        assert info["action_mask"].shape == info["candidate_ids"].shape == (60,)
        assert type(info["n_labelled"]) is type(info["episode_id"]) is int
        assert type(info["reward_accuracy"]) is float
        assert info["episode_id"] == start["episode_id"]
    assert end["ids"].shape == end["labels"].shape == (5,)
    assert end["curve_labels"].tolist() == [0, 5, 10, 12]
    assert end["test_curve"].shape == (4,)
    # Two are left of the budget: only the first two indices count.
    assert (end["ids"][2:] == -1).all()
    assert (end["labels"][2:] == -1).all()


def test_rewards_add_up_to_the_change_of_accuracy(make_active: Make) -> None:
    for metric in ("accuracy", "auroc"):
        played = play(make_active(metric=metric))
        accuracies = [played[0][1]["reward_accuracy"], *(step[-1]["reward_accuracy"] for step in played[1:])]
        np.testing.assert_allclose([step[1] for step in played[1:]], np.diff(accuracies), rtol=0, atol=1e-12)
        assert len(set(accuracies)) > 1


@pytest.mark.parametrize("changes", [{}, {"candidates": 15}, {"pool": 20, "candidates": 19, "budget": 16}])
def test_masks_say_what_may_be_labelled(make_active: Make, changes: dict[str, Any]) -> None:
    env = make_active(**changes)
    played = play(env)
    labelled = set(played[0][1]["initial_ids"].tolist())
    for step in played:
        observation, info = step[0], step[-1]
        labelled |= set(info.get("ids", np.array([], int)).tolist()) - {-1}
        np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
        offered = info["candidate_ids"][info["action_mask"] == 1]
        assert not labelled & set(offered.tolist())
        assert len(set(offered.tolist())) == len(offered)
        assert len(labelled) == info["n_labelled"]
    masks = env.action_masks()
    assert masks.dtype == np.bool_
    np.testing.assert_array_equal(masks, np.tile(info["action_mask"] == 1, 5))
    one = make_active(batch=1)
    one.reset(seed=0)
    assert one.action_masks().shape == (60,)


def test_a_candidate_keeps_its_index_for_the_whole_episode(make_active: Make) -> None:
    played = play(make_active())
    for step in played[1:]:
        np.testing.assert_array_equal(step[-1]["candidate_ids"], played[0][1]["candidate_ids"])


def test_few_candidates_are_drawn_anew_at_each_step(make_active: Make) -> None:
    env, other = make_active(candidates=15), make_active(candidates=15)
    ids = [step[-1]["candidate_ids"].tolist() for step in play(env, episode=3)]
    assert len({tuple(i) for i in ids}) == len(ids)
    # By the number of the episode and of the step, whatever was played before.
    other.reset(seed=5)
    assert [step[-1]["candidate_ids"].tolist() for step in play(other, episode=3)] == ids
    assert play(other, episode=4)[0][1]["candidate_ids"].tolist() != ids[0]
    # More than the pool has are the whole pool.
    assert make_active(candidates=500).engine.m == 60


def test_an_index_that_labels_nothing_spends_its_part_of_the_budget(make_active: Make) -> None:
    env = make_active(batch=1, budget=3)
    observation, info = env.reset(seed=0)
    labelled = int(np.flatnonzero(info["action_mask"] == 0)[0])
    new = int(free(info)[0])
    for action, n in ((labelled, 4), (new, 5), (new, 5)):
        observation, reward, over, _, info = env.step(action)
        assert info["n_labelled"] == n
        assert (info["ids"] == -1).all() == (n == 4 or over)
        if info["ids"][0] < 0:
            assert reward == 0
    assert over
    assert observation["state"][-1] == 1
    # The padded candidates of a pool that runs out are no candidates.
    few = make_active(pool=20, candidates=19, budget=16, batch=4)
    few.reset(seed=0)
    padded = np.flatnonzero(few.step(np.arange(4))[-1]["action_mask"] == 0)
    assert len(padded) > 4
    assert (few.step(padded[:4])[-1]["ids"] == -1).all()


def test_the_order_of_an_action_does_not_count(make_active: Make) -> None:
    env = make_active(**EVERYTHING, metric="auroc")
    found = []
    for order in ([3, 9, 20, 31, 40], [40, 31, 3, 20, 9]):
        env.reset(options={"episode": 2})
        observation, reward, *_ = env.step(np.array(order))
        found.append((reward, observation["candidates"], observation["state"]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_episodes_are_drawn_with_the_seed_and_chosen_by_number(make_active: Make) -> None:
    env = make_active(n_episodes=3)
    assert {env.reset(seed=seed)[1]["episode_id"] for seed in range(30)} == {0, 1, 2}
    assert env.reset(options={"episode": 99})[1]["episode_id"] == 99
    first, other = env.reset(options={"episode": 7}), make_active().reset(seed=4, options={"episode": 7})
    np.testing.assert_equal(first, other)


# -- test figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"metric": "balanced-accuracy"}, {"metric": "auroc", "candidates": 15}, {"reward": "target"}],
    ids=str,
)
def test_the_labels_of_the_test_part_are_seen_nowhere_but_in_the_test_curve(
    make_active: Make, make_active_vec: Make, blobs: Cohort, changes: dict[str, Any]
) -> None:
    arguments = {**EVERYTHING, **changes}
    rows = make_active(**arguments).engine.sampler.rows["test"]
    labels = blobs.labels.copy()
    labels[rows] = labels[np.random.default_rng(0).permutation(rows)]
    scrambled = dataclasses.replace(blobs, labels=labels)
    assert (labels[rows] != blobs.labels[rows]).any(axis=1).sum() > len(rows) / 3
    curves = []
    for number in range(4):
        played = [play(make_active(cohort=data, **arguments), number, episode=number) for data in (blobs, scrambled)]
        curves.append([each[-1][-1].pop("test_curve").tolist() for each in played])
        np.testing.assert_equal(played[1], played[0])
    assert all(a != b for a, b in curves)
    # And through the vector env, over ends of episodes.
    steps = []
    for data in (blobs, scrambled):
        vector = make_active_vec(3, cohort=data, **arguments)
        rng = np.random.default_rng(0)
        kept: list[Any] = [vector.reset(seed=0)]
        for _ in range(5):
            kept.append(vector.step(rng.integers(vector.unwrapped.engine.m, size=(3, 5))))
            kept[-1][-1].get("final_info", {}).pop("test_curve", None)
        steps.append(kept)
    np.testing.assert_equal(listed(steps[1]), listed(steps[0]))


# -- target -----------------------------------------------------------------------------------------------------------


def test_an_episode_with_a_target_costs_one_a_step_until_it_is_reached(make_active: Make) -> None:
    env = make_active(reward="target", tolerance=0.95, batch=1, budget=20)
    lengths = set()
    for number in range(6):
        played = play(env, number, episode=number)
        assert all(step[1] == -1 for step in played[1:])
        for step in played[1:-1]:
            assert step[-1]["reward_accuracy"] < env.engine.target()
        reached = played[-1][-1]["reward_accuracy"] >= env.engine.target()
        assert reached or len(played) == 21
        assert len(played[-1][-1]["test_curve"]) == len(played)
        lengths.add(len(played))
    assert len(lengths) > 2, "episodes of one length would not test the target"


def test_the_target_is_a_share_of_what_the_whole_pool_part_gives(make_active: Make) -> None:
    engine = make_active(reward="target", tolerance=0.5).engine
    whole = engine.sibling(tolerance=1.0)
    assert engine.target() == pytest.approx(whole.target() / 2, abs=1e-12)
    model = engine.learner.fit(
        engine.x["pool"][None], engine.y["pool"][None], torch.ones(1, len(engine.y["pool"])), 4, None
    )
    right = model.predict_proba(engine.x["reward"])[0].argmax(dim=-1) == engine.y["reward"]
    assert whole.target() == pytest.approx(float(right.double().mean()))


# -- trying labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"candidates": 30}, {"learner_arguments": {"epochs": 4, "warm": True}, "metric": "auroc"}], ids=str
)
def test_trying_a_label_gives_what_labelling_gives_and_changes_nothing(
    make_active: Make, changes: dict[str, Any]
) -> None:
    engine = make_active(batch=1, **changes).engine
    episodes = RunningEpisodes(engine, 3)
    episodes.begin(np.arange(3), [1, 2, 3])
    for action in ([0], [4]):
        episodes.label(np.array([action] * 3))
    saved, before = episodes.state_dict(), episodes.observe()
    tried = np.stack([np.flatnonzero(mask)[2:22:4] for mask in before["action_mask"]])
    found = episodes.try_labels(tried)
    assert found.shape == tried.shape
    np.testing.assert_equal(episodes.observe(), before)
    assert episodes.state_dict() == saved
    for t in range(tried.shape[1]):
        again = RunningEpisodes(engine, 3)
        again.load_state_dict(saved)
        again.label(tried[:, t : t + 1])
        np.testing.assert_allclose(again.quality, found[:, t], rtol=0, atol=1e-12)
    assert len(np.unique(found)) > 2


# -- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"candidates": 15, "batch": 1}, {"learner_arguments": {"epochs": 4, "warm": True}}], ids=str
)
@pytest.mark.parametrize("steps", [0, 2, 3])
def test_the_state_continues_an_episode_exactly(make_active: Make, changes: dict[str, Any], steps: int) -> None:
    env, other = make_active(**EVERYTHING, **changes), make_active(**EVERYTHING, **changes)
    rng = np.random.default_rng(0)

    def step(one: Any, action: np.ndarray) -> Any:
        return one.step(action[0] if len(action) == 1 else action)

    batch = env.engine.settings.batch
    observation, _ = env.reset(seed=1)
    for _ in range(steps):
        observation, *_ = step(env, rng.integers(env.engine.m, size=batch))
    state = json.loads(json.dumps(env.state_dict()))
    other.reset(seed=9)
    np.testing.assert_equal(other.load_state_dict(state), observation)
    while steps < 3 or batch == 1:
        action = rng.integers(env.engine.m, size=batch)
        result = step(env, action)
        np.testing.assert_equal(step(other, action), result)
        if result[2]:
            break
    for ended in (env, other):
        with pytest.raises(RuntimeError, match=r"call reset"):
            ended.step(np.arange(batch))
    np.testing.assert_equal(other.reset(), env.reset())


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_actions_that_choose_no_candidates_are_refused_and_change_nothing(
    make_active: Make, make_active_vec: Make
) -> None:
    env, vector = make_active(), make_active_vec(2)
    env.reset(seed=0)
    vector.reset(seed=0)
    cases: list[tuple[Any, str]] = [
        (np.arange(4), r"integers of shape \([12], 5\).*\([12], 4\)"),
        (np.arange(5)[None], "integers of shape"),
        (3, "integers of shape"),
        (np.arange(5.0), "float64"),
        (np.array([True] * 5), "bool"),
        (np.array([0, 1, 2, 3, 60]), r"index 60 is not one of the 60 candidates \(0 to 59\)"),
        (np.array([0, 1, 2, 3, -1]), "index -1 is not one of the 60 candidates"),
    ]
    before = env.state_dict(), vector.state_dict()
    for action, message in cases:
        with pytest.raises(SettingsError, match=message):
            env.step(action)
        with pytest.raises(SettingsError, match=message):
            vector.step(np.stack([action, action]))
    with pytest.raises(SettingsError, match=r"integers of shape \(2, 5\), one row an episode; got int64 \(3, 5\)"):
        vector.step(np.zeros((3, 5), int))
    assert (env.state_dict(), vector.state_dict()) == before
    one = make_active(batch=1)
    one.reset(seed=0)
    for good in (3, np.int64(4), np.array([5])):
        one.step(good)
    with pytest.raises(SettingsError, match="index 60"):
        one.step(60)


def test_an_episode_is_reset_before_its_steps_and_after_its_end(make_active: Make, make_active_vec: Make) -> None:
    env = make_active()
    with pytest.raises(RuntimeError, match=r"call reset"):
        env.step(np.arange(5))
    with pytest.raises(RuntimeError, match="reset"):
        env.state_dict()
    play(env)
    with pytest.raises(RuntimeError, match=r"call reset"):
        env.step(np.arange(5))
    env.reset()
    env.step(np.arange(5))
    with pytest.raises(RuntimeError, match=r"call reset"):
        make_active_vec(2).step(np.zeros((2, 5), int))


@pytest.mark.parametrize(("episode", "message"), [(-1, "episode -1"), (1.5, "episode"), ("a", "episode")])
def test_a_refused_episode_leaves_the_old_one_running(make_active: Make, episode: Any, message: str) -> None:
    env = make_active()
    env.reset(seed=0)
    before = env.step(np.arange(5))[0]
    with pytest.raises(SettingsError, match=message):
        env.reset(options={"episode": episode})
    np.testing.assert_equal(env._observe(), before)
    fresh = make_active()
    with pytest.raises(SettingsError, match=message):
        fresh.reset(options={"episode": episode})
    with pytest.raises(RuntimeError, match=r"call reset"):
        fresh.step(np.arange(5))
