"""``ActiveLabel-v0`` with a network that is fine-tuned on images: against plain code, spaces, cost, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import finetune_play
import numpy as np
import pytest
import torch
from active_reference import listed, quality
from conftest import EVERYTHING
from finetune_play import CORNERS, QUICK, SIZES, corners, make, make_vec, plain_fit, plain_look, quick
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from activelabel.agents import LAL_RL_ENV
from activelabel.data import Cohort
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings, RunningEpisodes
from activelabel.envs.candidates import FEATURES, LONG
from activelabel.envs.finetune import FineTune
from activelabel.errors import DataError, SettingsError

# -- against plain code -----------------------------------------------------------------------------------------------

GAMES: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "cosine": {**EVERYTHING, "distance": "cosine"},
    "few candidates": {**EVERYTHING, "candidates": 9, "batch": 2},
    "the whole part": {"pool": None, "features": tuple(FEATURES)},
    "one at a time": {"batch": 1, "budget": 3, "metric": "balanced-accuracy"},
    "colours": {"cohort": corners(colours=3), "learner_arguments": {**QUICK, "network": "finetune_play:normed"}},
}


class Plain:
    """One episode by its definitions; images are called by their rows of the cohort."""

    def __init__(self, engine: ActiveLabelEngine, info: dict[str, Any]) -> None:
        self.s, self.parts = engine.settings, engine.sampler.rows
        self.images = np.asarray(engine.cohort.images)
        self.truth = engine.cohort.labels.argmax(axis=1)
        drawn = engine.sampler.batch([info["episode_id"]])
        self.pool = self.parts["pool"][drawn.pool[0]]
        self.rows = info["initial_ids"].tolist()

    def train(self) -> None:
        learner = FineTune(**self.s.learner_arguments)
        network = plain_fit(learner, self.images[self.rows], self.truth[self.rows].tolist(), self.truth.max() + 1)
        seen = {part: plain_look(network, self.images[rows])[0].numpy() for part, rows in self.parts.items()}
        self.state = np.sort(seen["state"].max(axis=1))
        self.quality, self.test = (
            quality(self.s.metric, seen[part], self.truth[self.parts[part]].tolist()) for part in ("reward", "test")
        )
        self.p, latent = (x.numpy() for x in plain_look(network, self.images[self.pool]))
        self.latent = latent / np.sqrt((latent**2).sum(axis=1).mean())

    def features(self) -> dict[str, np.ndarray]:
        """Of every image of the pool."""
        x = torch.from_numpy(self.latent.astype(np.float64))
        d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        if self.s.distance == "cosine":
            unit = x / x.norm(dim=1, keepdim=True)
            d = (1 - unit @ unit.T).numpy()
        known = np.isin(self.pool, self.rows)
        others = np.sort(np.where(np.eye(len(d)) > 0, np.inf, d), axis=1)
        best = np.sort(self.p, axis=1)
        shares = np.bincount(self.truth[self.rows], minlength=self.p.shape[1]) / len(self.rows)
        return {
            "confidence": best[:, -1],
            "probability": self.p[:, 0],
            "margin": best[:, -1] - best[:, -2],
            "entropy": -(self.p * np.log(self.p)).sum(axis=1) / np.log(self.p.shape[1]),
            "labelled": d[:, known].mean(axis=1),
            "unlabelled": d[:, ~known].mean(axis=1),
            "nearest": d[:, known].min(axis=1),
            "density": 1 / (1 + others[:, :10].mean(axis=1)),
            "balance": self.p @ shares,
            "cost": np.ones(len(d)),  # the oracle is perfect
        }


@pytest.mark.parametrize("name", GAMES)
def test_an_episode_is_what_plain_code_plays(name: str) -> None:
    env = make(**GAMES[name])
    observation, info = env.reset(options={"episode": 5})
    plain, over, curve, reached = Plain(env.engine, info), False, [], [info["reward_accuracy"]]
    rng = np.random.default_rng(0)
    while True:
        plain.train()
        curve.append(plain.test)
        assert info["reward_accuracy"] == pytest.approx(plain.quality)
        at = [plain.pool.tolist().index(row) for row in info["candidate_ids"]]
        described = plain.features()
        for column, feature in enumerate(env.engine.settings.features):
            np.testing.assert_allclose(
                observation["candidates"][:, column], described[feature][at], rtol=1e-5, atol=2e-5, err_msg=feature
            )
        first = env.engine.settings.state_images
        np.testing.assert_allclose(observation["state"][:first], plain.state, rtol=0, atol=1e-5)
        if "embeddings" in observation:
            np.testing.assert_allclose(observation["probabilities"], plain.p[at], rtol=0, atol=1e-5)
            np.testing.assert_allclose(observation["embeddings"], plain.latent[at], rtol=0, atol=1e-5)
            mine = [plain.pool.tolist().index(row) for row in plain.rows]
            there = observation["labels"] >= 0
            np.testing.assert_array_equal(observation["labels"][there], plain.truth[plain.rows])
            np.testing.assert_allclose(observation["labelled"][there], plain.latent[mine], rtol=0, atol=1e-5)
            assert not observation["labelled"][~there].any()
        if over:
            break
        action = rng.integers(env.engine.m, size=env.engine.settings.batch)
        observation, reward, over, _, info = env.step(action[0] if len(action) == 1 else action)
        ids = np.atleast_1d(info["ids"])
        plain.rows += ids[ids >= 0].tolist()
        assert reward == pytest.approx(info["reward_accuracy"] - reached[-1])
        reached.append(info["reward_accuracy"])
    np.testing.assert_allclose(info["test_curve"], curve)
    assert len(curve) > 3


@pytest.mark.parametrize("name", ["everything", "few candidates", "the whole part"])
def test_sub_environments_equal_single_ones_to_the_last_bit(name: str) -> None:
    vector, singles = make_vec(3, **GAMES[name]), [make(**GAMES[name]) for _ in range(3)]
    observation, info = vector.reset(seed=2)
    alone = [env.reset(seed=2 + i)[0] for i, env in enumerate(singles)]
    rng = np.random.default_rng(1)
    for _ in range(4):
        for i in range(3):
            np.testing.assert_equal({key: array[i] for key, array in observation.items()}, alone[i])
        actions = rng.integers(vector.unwrapped.engine.m, size=vector.action_space.shape)
        observation, rewards, over, _, info = vector.step(actions)
        assert vector.observation_space.contains(observation)
        for i, env in enumerate(singles):
            alone[i], reward, ended, _, mine = env.step(actions[i])
            assert (reward, ended) == (rewards[i], over[i])
            if ended:
                np.testing.assert_equal(info["final_info"]["test_curve"][i], mine["test_curve"])
                alone[i] = env.reset()[0]


def test_saved_episodes_go_on() -> None:
    vector, other = make_vec(2, **EVERYTHING), make_vec(2, **EVERYTHING)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).integers(30, size=(5, 2, 3))
    vector.step(actions[0])
    vector.step(actions[1])
    saved = vector.unwrapped.state_dict()
    np.testing.assert_equal(other.unwrapped.load_state_dict(saved), vector.unwrapped.episodes.observe())
    for step in actions[2:]:  # past the end of the episodes
        np.testing.assert_equal(listed(other.step(step)), listed(vector.step(step)))


# -- spaces, and what a step costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("rate", [0.01, 0.9])
def test_gymnasium_finds_nothing_to_warn_of(distance: str, rate: float) -> None:
    env = make(**EVERYTHING, distance=distance, **quick(learning_rate=rate))
    check_env(env, skip_render_check=True)
    space = env.observation_space
    assert space["embeddings"].shape == (30, 8)
    assert space["labelled"].shape == (10, 8)
    observation, _ = env.reset(seed=0)
    assert space.contains(observation)
    norms = (observation["embeddings"] ** 2).sum(axis=1)
    assert norms.mean() == pytest.approx(1, abs=1e-5), "scaled, so that the bounds hold for any weights"


@pytest.mark.filterwarnings("ignore::activelabel.errors.DuplicateImagesWarning")
def test_dead_networks_and_far_images_stay_within_the_bounds() -> None:
    images = np.zeros((300, 8, 8), np.uint8)
    images[::50] = np.arange(6, dtype=np.uint8)[:, None, None] * 50
    for cohort in (replace(CORNERS, images=images), replace(CORNERS, images=np.zeros_like(images))):
        for distance in ("euclidean", "cosine"):
            env = make(cohort=cohort, distance=distance, **EVERYTHING, pool=None)
            for observation in [env.reset(seed=0)[0], env.step([1, 2, 3])[0]]:
                assert env.observation_space.contains(observation)


def test_a_fit_looks_at_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_play, "ROWS", rows := [])
    env = make(**quick(network="finetune_play:counted"), **EVERYTHING)
    env.reset(seed=0)
    e = env.engine
    trained = QUICK["epochs"] * 3
    assert sum(rows) == trained + e.pool + sum(len(e.x[part]) for part in ("state", "reward", "test"))
    rows.clear()
    env.step([0, 0, 0])
    assert sum(rows) < 2 * (trained + e.pool + sum(len(e.x[part]) for part in ("state", "reward", "test")))
    rows.clear()
    env.episodes.observe()
    assert not rows


def test_labelling_nothing_changes_nothing() -> None:
    env = make(**EVERYTHING)
    before, info = env.reset(seed=3)
    known = int(np.flatnonzero(info["action_mask"] == 0)[0])
    after, reward, _, _, info = env.step([known, known, known])
    assert (reward, info["n_labelled"]) == (0, 3)
    for key in before:
        if key != "state":  # it has the progress
            np.testing.assert_array_equal(before[key], after[key])


def test_siblings_share_images_and_network() -> None:
    class Lazy(list[Any]):
        reads: list[int] = []  # noqa: RUF012

        def __getitem__(self, i: Any) -> Any:
            self.reads.append(i)
            return super().__getitem__(i)

    images = Lazy(np.asarray(CORNERS.images))
    settings = {key: value for key, value in SIZES.items() if key != "device"}
    engine = ActiveLabelEngine(replace(CORNERS, images=images), ActiveLabelSettings.make(**settings), "cpu")
    mine = sorted(int(i) for rows in engine.sampler.rows.values() for i in rows)
    read = len(images.reads)
    assert sorted(images.reads[-len(mine) :]) == mine, "after the split has looked for duplicates"
    other = engine.sibling(budget=5, observe=("embeddings",), pool=20)
    assert len(images.reads) == read
    assert other.learner is engine.learner
    assert all(other.x[part] is engine.x[part] for part in engine.x)
    assert other.x["pool"].dtype == torch.uint8
    assert other.x["pool"].shape[1:] == (8, 8, 1)
    changed = engine.sibling(learner_arguments={**QUICK, "size": 6})
    assert len(images.reads) == read + len(mine)
    assert changed.learner is not engine.learner
    assert changed.x["pool"].shape[1:] == (6, 6, 1)
    with pytest.raises(SettingsError, match="there are no lasting points"):
        _ = engine.points


# -- images, features, and learners that do not fit -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::activelabel.errors.DuplicateImagesWarning")
def test_images_of_different_sizes_need_a_size() -> None:
    images = [np.full((8 + i % 3, 9, 3) if i % 2 else (8 + i % 3, 9), i % 200, np.uint8) for i in range(300)]
    mixed = replace(CORNERS, images=images)
    with pytest.raises(
        SettingsError, match=r"corners: images of 3 sizes \(8 x 9, 9 x 9, 10 x 9\); give the learner size"
    ):
        make(cohort=mixed)
    env = make(cohort=mixed, **quick(size=12))
    assert env.engine.x["reward"].shape[1:] == (12, 12, 3)
    row = int(env.engine.sampler.rows["reward"][0])
    assert (env.engine.x["reward"][0] == row % 200).all(), "grey is repeated among colours"
    wide = make(cohort=replace(CORNERS, images=np.zeros((300, 6, 10), np.uint8)))
    assert wide.engine.x["pool"].shape[1:] == (6, 10, 1)
    wide.reset(seed=0)
    for bad in (np.zeros((300, 8, 8)), np.zeros((300, 8, 8, 4), np.uint8), np.zeros((300, 8), np.uint8)):
        with pytest.raises(DataError, match=r"corners: image \d+ is .* expected uint8"):
            make(cohort=replace(CORNERS, images=bad))


def test_what_does_not_fit_is_refused_with_advice(blobs: Cohort) -> None:
    with pytest.raises(DataError, match="blobs has no images, and the learner trains on images"):
        make(cohort=blobs)
    with pytest.raises(DataError, match="corners has images but no features"):
        make(learner="softmax", learner_arguments={})
    with pytest.raises(DataError, match="corners has images but no features"):
        make(space="data")
    with pytest.raises(SettingsError, match="components=3 make a latent space of features; learner FineTune"):
        make(components=3)
    with pytest.raises(SettingsError, match="no_such_module"):
        make(**quick(network="no_such_module:tiny"))


def test_data_space_is_that_of_the_features() -> None:
    sizes = {"classes": ("0", "1", "2"), "features": LONG, "observe": ("embeddings",), "cohort": "digits"}
    sizes["space"] = "data"
    env, frozen = make(**sizes), make(**sizes, learner="softmax", learner_arguments={"epochs": 1})
    for step in range(3):
        seen = [(e.reset(seed=1) if step == 0 else e.step([4, 5, 5 + step]))[0] for e in (env, frozen)]
        for column in (1, 2, 5, 6):  # distances and density
            np.testing.assert_array_equal(*(o["candidates"][:, column] for o in seen))
        assert seen[0]["embeddings"].shape == (30, 8)
        assert env.observation_space.contains(seen[0])
    # LAL-RL's environment is a sibling, where there are features.
    other = env.engine.sibling(**LAL_RL_ENV, learner_arguments={}, observe=())
    assert other.x["pool"].shape[1:] == (64,)
    RunningEpisodes(other, 1).begin(np.arange(1), [0])


class Mine:
    """An image learner of a user, whose latent space is the mean of the image."""

    on_images = True
    latent_size: Any = 1

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Any) -> Any:
        assert x.dtype == torch.uint8
        assert x.shape == (1, y.shape[1], 8, 8, 1)
        self.n = n_classes
        return self

    def predict_proba(self, x: Tensor) -> Tensor:
        return torch.full((1, x.shape[-4], self.n), 1 / self.n)

    def latent(self, x: Tensor) -> Any:
        return x.float().mean(dim=(-1, -2, -3))[..., None]


def test_a_hand_written_learner_of_images_plays() -> None:
    vector = make_vec(2, learner=Mine(), learner_arguments={}, observe=("embeddings",))
    observation, info = vector.reset(seed=0)
    mean = np.asarray(CORNERS.images)[info["candidate_ids"]].mean(axis=(-1, -2))[..., None]
    expected = mean / np.sqrt((mean**2).mean(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(observation["embeddings"], expected, rtol=1e-5)
    cases: list[tuple[str, Any, str]] = [
        ("latent_size", None, "learner Mine trains on images and must have latent_size.* it is None"),
        ("latent_size", 2, r"learner Mine: latent must return a tensor \(1, 30, 2\), got \(1, 30, 1\)"),
        ("latent", None, r"learner Mine: a model on images must have latent\(x\)"),
        ("latent", lambda x: torch.full((1, x.shape[1], 1), float("nan")), "latent returned values that are NaN"),
    ]
    for name, value, message in cases:
        learner = Mine()
        setattr(learner, name, value)
        with pytest.raises(SettingsError, match=message):
            make(learner=learner, learner_arguments={}).reset(seed=0)
