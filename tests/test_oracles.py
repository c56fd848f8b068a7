"""Episodes whose labels are wrong, missing or dear, against the slow reference and each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from active_reference import SlowEpisode, listed, play
from conftest import EVERYTHING
from oracle_play import CONFUSION, engine_of, questions, three_annotators
from torch import Tensor

from activelabel.baselines import make_pool_baseline
from activelabel.data import Cohort
from activelabel.envs import RunningEpisodes
from activelabel.envs.asking import Perfect, Questions, answered
from activelabel.envs.candidates import DISTANCES
from activelabel.envs.oracles import Noisy
from activelabel.evaluation.episodes import play_episodes
from activelabel.seeding import stream

Make = Callable[..., Any]

GAMES: dict[str, dict[str, Any]] = {
    "noisy": {"oracle": "noisy", "oracle_arguments": {"rate": 0.4}},
    "confusion": {"oracle": "noisy", "oracle_arguments": {"confusion": CONFUSION}},
    "always wrong": {"oracle": "noisy", "oracle_arguments": {"rate": 1.0}, "candidates": 15},
    "abstaining": {"oracle": "abstaining", "oracle_arguments": {"rate": 0.5}},
    "never an answer": {"oracle": "abstaining", "oracle_arguments": {"rate": 1.0}, "pool": 20, "budget": 16},
    "costs": {"oracle": "annotators", "oracle_arguments": {"errors": [0.6, 0.0], "costs": [1, 4]}, "budget": 24},
    "all at once": {**three_annotators(CONFUSION), "candidates": 30},
    "target": {"oracle": "noisy", "oracle_arguments": {"rate": 0.3}, "reward": "target", "tolerance": 0.8, "batch": 2},
}


@pytest.mark.parametrize("name", GAMES)
def test_an_episode_equals_the_slow_reference(make_active: Make, name: str) -> None:
    env = make_active(**{**EVERYTHING, **GAMES[name]})
    rng = np.random.default_rng(2)
    strange = 0
    for number in (3, 8):
        observation, info = env.reset(options={"episode": number})
        slow = SlowEpisode(env.engine, number)
        compare(observation, info, slow)
        over = False
        while not over:
            action = rng.integers(env.engine.m, size=env.engine.settings.batch).tolist()
            before = (info["candidate_ids"].tolist(), info["action_mask"].tolist())
            observation, reward, over, _, info = env.step(action)
            expected, ends, ids = slow.step(*before, action)
            assert reward == pytest.approx(expected, abs=1e-12)
            assert over == ends
            assert info["ids"].tolist() == ids
            said = dict(zip(slow.labelled, slow.answers, strict=True))
            assert info["labels"].tolist() == [said.get(row, -1) for row in ids]
            strange += sum(said.get(row) != slow.label(row) for row in ids if row >= 0)
            compare(observation, info, slow)
        spent, curve = zip(*slow.curve, strict=True)
        assert info["curve_labels"].tolist() == list(spent)
        np.testing.assert_allclose(info["test_curve"], curve, rtol=0, atol=1e-12)
    assert strange > 2


def compare(observation: dict[str, Any], info: dict[str, Any], slow: SlowEpisode) -> None:
    rows, mask = info["candidate_ids"].tolist(), info["action_mask"].tolist()
    offered = {row for row, there in zip(rows, mask, strict=True) if there}
    free = set(slow.pool) - set(slow.asked)
    assert offered <= free
    assert len(offered) == min(len(rows), len(free))
    assert info["n_labelled"] == len(slow.labelled)
    there = observation["labels"] >= 0
    assert observation["labels"][there].tolist() == slow.answers
    latent = slow.latent[slow.labelled]
    np.testing.assert_allclose(observation["labelled"][there], latent, rtol=0, atol=1e-5)
    np.testing.assert_allclose(observation["state"], slow.state(), rtol=0, atol=2e-5)
    described = [slow.features(row) for row in rows]
    for i, name in enumerate(slow.s.features):
        expected = [features[name] for features in described]
        atol = 1e-4 if name in DISTANCES else 2e-5
        np.testing.assert_allclose(observation["candidates"][:, i], expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", GAMES)
def test_a_vector_env_equals_single_envs(make_active: Make, make_active_vec: Make, name: str) -> None:
    changes = {**GAMES[name], "observe": ("labelled",)}
    vector, singles = make_active_vec(autoreset_mode="Disabled", **changes), [make_active(**changes) for _ in range(3)]
    rng = np.random.default_rng(0)
    observations, _ = vector.reset(options={"episode": np.array([4, 5, 6])})
    alone = [env.reset(options={"episode": 4 + i}) for i, env in enumerate(singles)]
    while not vector.episodes.over.any():
        for key, values in observations.items():
            np.testing.assert_array_equal(values, np.stack([step[0][key] for step in alone]))
        actions = rng.integers(vector.engine.m, size=(3, vector.engine.settings.batch))
        observations, rewards, over, _, infos = vector.step(actions)
        alone = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        assert rewards.tolist() == [step[1] for step in alone]
        assert over.tolist() == [step[2] for step in alone]
        for key in ("ids", "labels", "n_labelled"):
            np.testing.assert_array_equal(infos[key], np.stack([step[-1][key] for step in alone]))


@pytest.mark.parametrize(
    "change",
    [
        {"oracle": "noisy", "oracle_arguments": {"rate": 0.0}},
        {"oracle": "noisy", "oracle_arguments": {"confusion": np.eye(4).tolist()}},
        {"oracle": "abstaining", "oracle_arguments": {"rate": 0.0}},
        {"oracle": "annotators", "oracle_arguments": {"errors": [0, 0], "shares": [0.9, 0.1]}},
        {"oracle": Perfect()},
    ],
)
def test_an_oracle_without_errors_is_the_perfect_one_to_the_last_bit(make_active: Make, change: dict[str, Any]) -> None:
    for game in (EVERYTHING, {"candidates": 20, "learner": "logistic", "learner_arguments": {"max_iter": 9}}):
        expected = listed(play(make_active(**game), episode=2))
        np.testing.assert_equal(listed(play(make_active(**game, **change), episode=2)), expected)


def test_the_same_image_is_answered_alike_by_whomever_it_is_asked_for(blobs: Cohort) -> None:
    engine = engine_of(blobs, **GAMES["all at once"])
    said: list[dict[tuple[int, int], int]] = []
    # In another order, with other batches, alone and among others.
    for order, batch, numbers in ((1, 5, [7, 8]), (2, 2, [8, 9, 7]), (3, 1, [7])):
        sibling = engine.sibling(batch=batch, budget=56, candidates=None, learner_arguments={"epochs": 1})
        episodes = RunningEpisodes(sibling, len(numbers))
        episodes.begin(np.arange(len(numbers)), numbers)
        found, rng = {}, np.random.default_rng(order)
        while not episodes.over.all():
            result = episodes.label(rng.integers(sibling.m, size=(len(numbers), batch)))
            for i, number in enumerate(numbers):
                for row, label in zip(result.ids[i].tolist(), result.labels[i].tolist(), strict=True):
                    if row >= 0:
                        found[number, row] = label
        said.append(found)
    both = set(said[0]) & set(said[1]) & set(said[2])
    assert len(both) > 4
    assert len({said[0][key] for key in both}) > 2
    for key in both:
        assert said[0][key] == said[1][key] == said[2][key]
    # Another episode is another draw, even of the same images.
    shared = [row for number, row in said[1] if number == 7 and (8, row) in said[1]]
    assert any(said[1][7, row] != said[1][8, row] for row in shared)


def test_strategies_are_judged_with_the_same_answers(blobs: Cohort) -> None:
    heard: dict[str, dict[tuple[int, int], int]] = {}

    class Listening(Noisy):
        def answers(self, questions: Questions) -> Tensor:
            found = super().answers(questions)
            key = questions.draws[..., 0]  # it tells episode and image
            for i, j in questions.asked.nonzero().tolist():
                heard[name][int(questions.rows[i, j]), float(key[i, j])] = int(found[i, j])  # type: ignore[index]
            return found

    engine = engine_of(blobs, oracle=Listening(0.5))
    curves = {}
    for name in ("random", "margin", "badge"):
        heard[name] = {}
        curves[name] = play_episodes(engine, make_pool_baseline(name, 5, 0), 4, batch=3).accuracy
    assert len(set(heard["random"]) & set(heard["margin"]) & set(heard["badge"])) > 0
    for a, b in (("random", "margin"), ("random", "badge"), ("margin", "badge")):
        assert all(heard[a][key] == heard[b][key] for key in set(heard[a]) & set(heard[b]))
    again = play_episodes(engine, make_pool_baseline("margin", 5, 0), 4, batch=4).accuracy
    np.testing.assert_array_equal(again, curves["margin"])


def test_noise_does_harm_and_more_noise_errs_on_the_same_images(blobs: Cohort) -> None:
    wrong = []
    for rate in (0.1, 0.2, 0.6):
        engine = engine_of(blobs, oracle="noisy", oracle_arguments={"rate": rate})
        asked = questions(blobs, [0] * 60, draws=engine.draws(np.array([3])))
        wrong.append(set(answered(engine.oracle, asked).flatten().nonzero().flatten().tolist()))
    assert wrong[0] < wrong[1] < wrong[2]
    reached = [
        play_episodes(engine_of(blobs, budget=40, **changes), make_pool_baseline("random", 5, 0), 20).final.mean()
        for changes in ({}, {"oracle": "noisy", "oracle_arguments": {"rate": 0.7}})
    ]
    assert reached[0] - reached[1] > 0.1


def test_the_truth_goes_into_nothing_but_the_answers(blobs: Cohort) -> None:
    # Other classes of the pool's images, and an oracle that gives the same answers: the same episode.
    fixed: Tensor = torch.from_numpy(stream(0, "fixed").integers(0, 4, len(blobs)))

    class Fixed(Perfect):
        def answers(self, questions: Questions) -> Tensor:
            return fixed[torch.from_numpy(questions.rows)]

    played = []
    for change in (0, 1):
        env = gym.make("ActiveLabel-v0", engine=engine_of(blobs, oracle=Fixed(), **EVERYTHING)).unwrapped
        env.reset(options={"episode": 1})  # type: ignore[union-attr]
        y = env.engine.y["pool"]  # type: ignore[union-attr]
        start = env.episodes.pool[0][env.episodes.slots[0, :4]]  # type: ignore[union-attr]
        other = (y + change) % 4
        other[start] = y[start]  # the initial labels are true
        env.engine.y = {**env.engine.y, "pool": other}  # type: ignore[union-attr]
        played.append([listed(env.step(np.arange(5 * i, 5 * i + 5))) for i in range(3)])  # type: ignore[union-attr]
    np.testing.assert_equal(played[0], played[1])


def test_a_label_without_an_answer_is_spent(make_active: Make) -> None:
    env = make_active(oracle="abstaining", oracle_arguments={"rate": 1.0}, batch=4, budget=8, **EVERYTHING)
    first, start = env.reset(options={"episode": 0})
    free = np.flatnonzero(start["action_mask"])
    observation, reward, over, _, info = env.step(free[:4])
    assert info["ids"].tolist() == start["candidate_ids"][free[:4]].tolist()
    assert info["labels"].tolist() == [-1] * 4
    assert (reward, over, info["n_labelled"]) == (0.0, False, 4)
    assert info["reward_accuracy"] == start["reward_accuracy"]
    assert (observation["action_mask"] == 0).sum() == 8  # not offered again
    assert observation["state"][-1] == 0.5
    for name in ("candidates", "labels", "probabilities"):
        np.testing.assert_array_equal(observation[name], first[name])
    assert env.step(free[4:8])[2]


def test_costs_end_the_episode_at_the_budget(make_active: Make) -> None:
    env = make_active(
        oracle="annotators", oracle_arguments={"errors": [0.0], "costs": [3]}, batch=2, budget=10, candidates=None
    )
    _, start = env.reset(options={"episode": 0})
    free = np.flatnonzero(start["action_mask"])
    spent = []
    for action in ([free[0], free[0]], [free[1], 0 if start["action_mask"][0] == 0 else free[0]], free[2:4]):
        _, _, over, _, info = env.step(np.array(action))
        spent.append(int(env.episodes.spent[0]))
    # A label is 3, a repeated index 1; 2 are left of the budget, which pay for no label.
    assert spent == [4, 8, 10]
    assert over
    assert info["ids"].tolist() == [-1, -1]
    assert info["curve_labels"].tolist() == [0, 4, 8, 10]
    assert info["n_labelled"] == 6
    assert info["test_curve"][-1] == info["test_curve"][-2]


def test_candidates_can_be_tried_in_episodes_with_other_numbers_of_labels(blobs: Cohort) -> None:
    engine = engine_of(blobs, **{**GAMES["costs"], "budget": 56})
    episodes, alone = RunningEpisodes(engine, 3), RunningEpisodes(engine, 1)
    steps = np.arange(20).reshape(4, 5).tolist()
    episodes.load_state_dict({"index": [0, 1, 2], "actions": [steps[:1], steps[:2], []]})
    assert not episodes.over.any()
    assert len(set(episodes.filled.tolist())) == 3
    tried = np.stack([np.flatnonzero(mask)[-6:] for mask in episodes.mask.numpy()])
    found = episodes.try_labels(tried)
    for i in range(3):
        alone.load_state_dict({"index": [i], "actions": [episodes.actions[i]]})
        np.testing.assert_allclose(alone.try_labels(tried[i : i + 1])[0], found[i], rtol=0, atol=1e-12)


def test_saved_episodes_go_on(make_active_vec: Make) -> None:
    changes = {**GAMES["all at once"], **EVERYTHING, "autoreset_mode": "NextStep"}
    rng = np.random.default_rng(0)
    vector, other = make_active_vec(**changes), make_active_vec(**changes)
    vector.reset(seed=1)
    actions = [rng.integers(vector.engine.m, size=(3, 5)) for _ in range(6)]
    for action in actions[:2]:
        vector.step(action)
    other.reset(seed=5)
    other.load_state_dict(vector.state_dict())
    for action in actions[2:]:
        np.testing.assert_equal(listed(other.step(action)), listed(vector.step(action)))
