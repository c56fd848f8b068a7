"""Query strategies of ActiveLabel-v0: one template for all, in the environment and on any observation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pool_play import ADAPTED, attached, observe, pick, play, sizes

from activelabel.baselines import POOL_BASELINES, Badge, make_pool_baseline
from activelabel.baselines.pool import best
from activelabel.errors import SettingsError

every = pytest.mark.parametrize("name", [*POOL_BASELINES, *ADAPTED])


# -- what all of them promise, in the environment ----------------------------------------------------------------------


@every
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("candidates", [None, 10])
def test_it_plays_to_the_end_and_never_wastes_a_label(name: str, batch: int, candidates: int | None) -> None:
    agent, envs = play(name, batch, candidates=candidates)
    observation, info = envs.reset(seed=0)
    for step in range(12 // batch):
        assert (observation["action_mask"].sum(axis=1) >= batch).all()
        actions, state = agent.predict(observation)
        assert state is None
        assert actions.dtype == np.int64
        assert actions.shape == ((3,) if batch == 1 else (3, batch))
        assert actions in envs.action_space
        observation, _, over, _, info = envs.step(actions)
        info = info["final_info"] if over.any() else info
        assert (info["ids"] >= 0).all()
        np.testing.assert_array_equal(info["n_labelled"], 4 + batch * (step + 1))
        assert over.all() == (step == 12 // batch - 1)
    assert info["test_curve"][0].shape == (12 // batch + 1,)


@every
def test_the_last_labels_of_a_budget_that_the_batch_does_not_divide(name: str) -> None:
    agent, envs = play(name, 5)
    observation, _ = envs.reset(seed=0)
    for _ in range(3):
        observation, _, over, _, info = envs.step(agent.predict(observation)[0])
    assert over.all()
    np.testing.assert_array_equal(info["final_info"]["n_labelled"], 16)


@every
@pytest.mark.parametrize("batch", [1, 3])
def test_a_single_environment_needs_no_batch_dimension(name: str, batch: int) -> None:
    agent = make_pool_baseline(name, batch)
    env = gym.make("ActiveLabel-v0", **sizes({}, agent))
    attached(agent, env.unwrapped)
    observation, _ = env.reset(seed=2)
    vector_agent, envs = play(name, batch, num_envs=1)
    same, _ = envs.reset(seed=2)
    action, _ = agent.predict(observation)
    assert action.shape == (() if batch == 1 else (batch,))
    assert action.dtype == np.int64
    assert action in env.action_space
    np.testing.assert_array_equal(action, vector_agent.predict(same)[0][0])
    for _ in range(12 // batch):
        observation, _, over, _, info = env.step(agent.predict(observation)[0])
    assert over
    assert info["n_labelled"] == 16


@every
def test_the_seed_decides_and_no_global_generator_is_used(name: str) -> None:
    taken: list[list[NDArray[np.int64]]] = []
    for _ in range(2):
        agent, envs = play(name, seed=5)
        observation, _ = envs.reset(seed=1)
        actions = []
        for _ in range(3):
            with reference.global_rng_untouched():
                actions.append(agent.predict(observation)[0])
            observation = envs.step(actions[-1])[0]
        taken.append(actions)
    np.testing.assert_array_equal(*taken)


RANDOM = ["random", "badge", "typiclust", "oracle"]


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_is_another_choice(name: str) -> None:
    chosen = []
    for seed in (0, 1):
        agent, envs = play(name, 8, seed)
        chosen.append(agent.predict(envs.reset(seed=0)[0])[0])
    assert (chosen[0] != chosen[1]).any()


@pytest.mark.parametrize("name", sorted(set(POOL_BASELINES) - set(RANDOM)))
def test_a_strategy_without_randomness_does_not_depend_on_the_seed(name: str) -> None:
    actions = [make_pool_baseline(name, 4, seed).predict(observe(0))[0] for seed in (0, 1)]
    np.testing.assert_array_equal(*actions)


# -- what all of them promise, on any observation ----------------------------------------------------------------------

unattached = pytest.mark.parametrize("name", [*sorted(set(POOL_BASELINES) - {"oracle"}), *ADAPTED])


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")  # scikit-activeml's, of images that are alike
@unattached
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    m=st.integers(1, 12),
    batch=st.integers(1, 7),
    free=st.lists(st.integers(0, 12), min_size=2, max_size=2),
    alike=st.booleans(),
)
def test_only_what_is_not_labelled_is_chosen_and_nothing_twice(
    name: str, seed: int, m: int, batch: int, free: list[int], alike: bool
) -> None:
    observation = observe(seed, b=2, m=m)
    if alike:
        observation["embeddings"][:], observation["probabilities"][:] = 1, 1 / 3
    observation["action_mask"][:] = 0
    rng = np.random.default_rng(seed)
    for b, count in enumerate(free):
        observation["action_mask"][b, rng.permutation(m)[:count]] = 1
    agent = make_pool_baseline(name, batch)
    chosen, _ = agent.predict(observation)
    assert chosen.shape == ((2,) if batch == 1 else (2, batch))
    for b, row in enumerate(chosen.reshape(2, batch).tolist()):
        there = set(np.flatnonzero(observation["action_mask"][b]).tolist())
        wanted = min(batch, len(there))
        assert set(row[:wanted]) <= there
        assert len(set(row[:wanted])) == wanted
        # What is left over labels nothing: it repeats the first, or is an image that is labelled.
        assert set(row[wanted:]) <= ({row[0]} if wanted else {0})


@unattached
def test_a_batch_is_one_pool_after_the_other(name: str) -> None:
    observation = observe(2)
    together = make_pool_baseline(name, 3, 4).predict(observation)[0]
    alone = make_pool_baseline(name, 3, 4)
    for i in range(len(together)):
        np.testing.assert_array_equal(alone.predict(pick(observation, i))[0], together[i])


@pytest.mark.usefixtures("every_torch_warning")
@unattached
def test_the_observation_is_not_written_into(name: str) -> None:
    observation = observe(5)
    before = {key: array.copy() for key, array in observation.items()}
    for array in observation.values():
        array.flags.writeable = False
    make_pool_baseline(name).predict(observation)
    for key, array in observation.items():
        np.testing.assert_array_equal(array, before[key])


@every
def test_an_observation_without_what_it_needs_is_refused(name: str) -> None:
    agent = make_pool_baseline(name)
    with pytest.raises(SettingsError, match="the observation has no 'action_mask' but pool; give one of ActiveLabel"):
        agent.predict({"pool": np.zeros((4, 3))})
    for key in agent.observes:
        observation = {k: v for k, v in observe(0).items() if k != key}
        with pytest.raises(SettingsError, match=rf"{name} needs '{key}' in .*observe=\('.*{key}'.*\)"):
            agent.predict(observation)
    if "labelled" in agent.observes:
        with pytest.raises(SettingsError, match=f"{name} needs 'labels'"):
            agent.predict({k: v for k, v in observe(0).items() if k != "labels"})


@every
def test_a_batch_below_one_is_refused(name: str) -> None:
    for batch in (0, 1.5, True):
        with pytest.raises(SettingsError, match=f"batch={batch} must be a whole number of at least 1"):
            make_pool_baseline(name, batch)  # type: ignore[arg-type]


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(SettingsError, match=r"unknown query strategy 'margn'\. Did you mean 'margin'\?.*'skactiveml:'"):
        make_pool_baseline("margn")
    assert set(POOL_BASELINES) == {
        *("random", "margin", "entropy", "uncertainty", "average-confidence"),
        *("k-center", "badge", "typiclust", "oracle"),
    }
    assert isinstance(make_pool_baseline("badge", 2, 3), Badge)


def test_the_state_of_a_recurrent_agent_is_handed_through() -> None:
    state = (np.ones(2),)
    assert make_pool_baseline("random").predict(observe(0), state, np.ones(4), deterministic=True)[1] is state


def test_best_leaves_out_what_is_not_free() -> None:
    free = np.array([[True, False, True, True], [False, False, True, False]])
    scores = np.array([[1.0, 9.0, 1.0, 2.0], [1.0, 2.0, -5.0, 4.0]])
    assert best(scores, free, 3).tolist() == [[3, 0, 2], [2, -1, -1]]
    assert best(scores, free, 5).tolist() == [[3, 0, 2, -1, -1], [2, -1, -1, -1, -1]]
