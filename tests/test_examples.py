"""The PPO examples that come without Stable-Baselines3: they run on both environments, and do what they say."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL: dict[str, Any] = {
    "pool": 40,
    "labels": 4,
    "num_envs": 8,
    "num_steps": 8,
    "eval_episodes": 6,
    "learner_epochs": 5,
}
"""Sizes that keep a few hundred steps under some seconds."""


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cleanrl() -> Any:
    return example("cleanrl_ppo")


@pytest.fixture(scope="module")
def torchrl() -> Any:
    pytest.importorskip("torchrl")
    return example("torchrl_ppo")


@pytest.fixture(autouse=True)
def torch_generator_as_it_was() -> Iterator[None]:
    """The examples are programs: they seed torch's global generator."""
    with torch.random.fork_rng():
        yield


# TorchRL's own modules, when they are imported, use what it has deprecated.
for_torchrl = pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")


def small(module: Any, preset: str, **changes: Any) -> Any:
    return replace(module.PRESETS[preset], **SMALL, **changes)


def check_scores(scores: dict[str, Any], usual: str) -> None:
    assert list(scores) == ["random", usual, "PPO"]
    for values in scores.values():
        assert values.shape == (6,)
        assert ((values > 0) & (values <= 1)).all()
    assert (scores["PPO"] != scores["random"]).any()


USUAL = {"active": "margin", "selective": "K-Medoids"}


# -- CleanRL's style --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", USUAL)
def test_cleanrl_trains_judges_and_writes_what_cleanrl_writes(
    cleanrl: Any, preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = small(cleanrl, preset, total_timesteps=320, runs=tmp_path)
    check_scores(cleanrl.main(args), USUAL[preset])
    assert "PPO minus it" in capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    env_id, name, seed, _ = run.name.split("__")
    assert (env_id, name, seed) == (args.env_id, "cleanrl_ppo", "1")
    events = EventAccumulator(str(run))
    events.Reload()
    expected = {
        *(f"charts/{n}" for n in ("learning_rate", "SPS", "episodic_return", "episodic_length")),
        *(f"losses/{n}" for n in ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")),
        "losses/explained_variance",
        "charts/test_minus_random",
    }
    assert expected <= set(events.Tags()["scalars"])
    assert {e.value for e in events.Scalars("charts/episodic_length")} == {4.0 if preset == "active" else 1.0}
    assert [e.step for e in events.Scalars("losses/entropy")] == [64, 128, 192, 256, 320]


def weights(agent: Any) -> list[float]:
    return [float(p.detach().double().sum()) for p in agent.parameters()]


class Silent:
    """In the place of TensorBoard's writer."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert math.isfinite(value)


@pytest.mark.parametrize("preset", USUAL)
def test_cleanrl_gives_the_same_numbers_for_the_same_seed(cleanrl: Any, preset: str) -> None:
    trained = [weights(cleanrl.train(small(cleanrl, preset, total_timesteps=64, seed=s), Silent())) for s in (1, 1, 2)]
    assert trained[0] == trained[1]
    assert trained[0] != trained[2]


def test_cleanrl_log_probabilities_are_exact(cleanrl: Any) -> None:
    logits = torch.tensor([[0.3, -1.0, -math.inf, 2.0]])
    pairs = list(itertools.permutations((0, 1, 3), 2))
    found = {p: float(cleanrl.log_prob_and_entropy(logits, torch.tensor([p]))[0].exp()) for p in pairs}
    mass = logits.exp()[0].tolist()
    for (a, b), probability in found.items():
        assert probability == pytest.approx(mass[a] / sum(mass) * mass[b] / (sum(mass) - mass[a]), rel=1e-5)
    assert sum(found.values()) == pytest.approx(1)
    # The entropy of the whole is the mean of what is returned, and of the surprise.
    entropy = sum(q * float(cleanrl.log_prob_and_entropy(logits, torch.tensor([p]))[1]) for p, q in found.items())
    assert entropy == pytest.approx(-sum(q * math.log(q) for q in found.values()), rel=1e-5)


def test_cleanrl_draws_by_these_probabilities_and_never_what_is_masked(cleanrl: Any) -> None:
    logits = torch.tensor([0.3, -1.0, -math.inf, 2.0])
    drawn = cleanrl.draw(logits.expand(20_000, 4), 2, torch.Generator().manual_seed(0))
    for pair in itertools.permutations((0, 1, 3), 2):
        expected = float(cleanrl.log_prob_and_entropy(logits[None], torch.tensor([pair]))[0].exp())
        assert float((drawn == torch.tensor(pair)).all(dim=1).double().mean()) == pytest.approx(expected, abs=0.012)
    assert not (drawn == 2).any()


def test_cleanrl_advantages_are_sums_of_discounted_surprises(cleanrl: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 5, 3, generator=rng)
    ended, last = (torch.rand(5, 3, generator=rng) < 0.3).float(), torch.randn(3, generator=rng)
    args = small(cleanrl, "active", gamma=0.8, gae_lambda=0.6)
    found = cleanrl.advantages(rewards, values, ended, last, args)
    ahead = torch.cat([values[1:], last[None]])
    for t, i in itertools.product(range(5), range(3)):
        expected, weight = 0.0, 1.0
        for s in range(t, 5):
            more = float(1 - ended[s, i])
            expected += weight * float(rewards[s, i] + 0.8 * more * ahead[s, i] - values[s, i])
            weight *= 0.8 * 0.6 * more
        assert float(found[t, i]) == pytest.approx(expected, abs=1e-5)


def test_cleanrl_network_does_not_see_order_padding_or_masked_candidates(cleanrl: Any) -> None:
    torch.manual_seed(0)
    features, mask = torch.randn(2, 6, 3), torch.ones(2, 6)
    mask[:, 4:] = 0

    def read(order: list[int]) -> Any:
        observation = {"candidates": features[:, order], "state": torch.ones(2, 2), "action_mask": mask[:, order]}
        return cleanrl.Inputs.of({name: array.numpy() for name, array in observation.items()})

    whole = read([0, 1, 2, 3, 4, 5])
    agent = cleanrl.Agent(whole, 8)
    logits, value = agent(whole)
    assert logits[:, 4:].isneginf().all()
    for order in ([3, 5, 1, 0, 2, 4], [2, 1, 3, 0]):
        others, same = agent(read(order))
        torch.testing.assert_close(others, logits[:, order])
        torch.testing.assert_close(same, value)


def test_cleanrl_update_makes_what_was_good_more_likely(cleanrl: Any) -> None:
    torch.manual_seed(0)
    args = small(cleanrl, "active", num_minibatches=1, learning_rate=1e-2)
    inputs = cleanrl.Inputs(torch.eye(4).expand(16, 4, 4), torch.zeros(16, 0), torch.ones(16, 4, dtype=torch.bool))
    agent = cleanrl.Agent(inputs, 8)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate)
    chosen = torch.arange(16)[:, None] % 4
    with torch.no_grad():
        logits, value = agent(inputs)
        log_prob = cleanrl.log_prob_and_entropy(logits, chosen)[0]
    advantage = (chosen[:, 0] == 2).float()
    data = cleanrl.Rollout(inputs, chosen, log_prob, value, advantage, torch.full((16,), 0.5))
    found = cleanrl.update(agent, optimizer, data, args, torch.Generator().manual_seed(0))
    after, values = agent(inputs)
    assert (after[:, 2] - after[:, [0, 1, 3]].amax(dim=1) > 0.02).all()
    assert (values - 0.5).abs().mean() < (value - 0.5).abs().mean()
    assert found["approx_kl"] > 0


# -- TorchRL ----------------------------------------------------------------------------------------------------------


@for_torchrl
@pytest.mark.parametrize("preset", USUAL)
def test_torchrl_trains_and_judges(torchrl: Any, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = torchrl.main(small(torchrl, preset, total_frames=320))
    check_scores(scores, USUAL[preset])
    assert "PPO minus it" in capsys.readouterr().out


@for_torchrl
@pytest.mark.parametrize("preset", USUAL)
def test_torchrl_gives_the_same_numbers_for_the_same_seed(torchrl: Any, preset: str) -> None:
    trained = [weights(torchrl.train(small(torchrl, preset, total_frames=64, seed=s)).network) for s in (1, 1, 2)]
    assert trained[0] == trained[1]
    assert trained[0] != trained[2]


@for_torchrl
@pytest.mark.parametrize("policy", ["random", "actor"])
def test_torchrl_never_takes_a_labelled_image(torchrl: Any, policy: str) -> None:
    args = small(torchrl, "active")
    env = torchrl.for_torchrl(args, torchrl.make_envs(args, 8))
    env.set_seed(0)
    torch.manual_seed(0)
    actor = torchrl.Agent(args, env).actor if policy == "actor" else None
    played = env.rollout(12, actor, break_when_any_done=False)
    assert played["next", "done"].sum() == 8 * 3
    assert played["action_mask"].dtype == torch.bool
    assert played["action_mask"].gather(-1, played["action"][..., None]).all()


@for_torchrl
@pytest.mark.parametrize("preset", USUAL)
def test_torchrl_judges_what_it_trained(torchrl: Any, preset: str) -> None:
    from torchrl.envs.utils import ExplorationType, set_exploration_type

    args = small(torchrl, preset)
    envs = torchrl.make_envs(args, 8)
    env = torchrl.for_torchrl(args, envs)
    torch.manual_seed(0)
    agent = torchrl.Agent(args, env)
    torch.nn.init.normal_(agent.network.out.weight)
    for _ in range(3):
        seen = env.reset()
        observation = envs.unwrapped.load_state_dict(envs.unwrapped.state_dict())
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            expected = agent.actor(seen)["action"].reshape(8, agent.k)
        torch.testing.assert_close(torch.from_numpy(agent.predict(observation)[0]), expected)


@for_torchrl
def test_torchrl_draws_distinct_images_by_exact_probabilities(torchrl: Any) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.3, -1.0, 2.0])
    rule = torchrl.DistinctCandidates(logits.expand(2, 10_000, 3), 2)
    drawn = rule.sample()
    assert drawn.shape == (2, 10_000, 2)
    probabilities = rule.log_prob(drawn).exp()
    mass = logits.exp().tolist()
    for a, b in itertools.permutations(range(3), 2):
        there = (drawn == torch.tensor([a, b])).all(dim=-1)
        expected = mass[a] / sum(mass) * mass[b] / (sum(mass) - mass[a])
        assert float(there.double().mean()) == pytest.approx(expected, abs=0.012)
        torch.testing.assert_close(probabilities[there], torch.full((int(there.sum()),), expected))
    assert rule.deterministic_sample[0, 0].tolist() == [2, 0]


# -- both -------------------------------------------------------------------------------------------------------------


@for_torchrl
@pytest.mark.parametrize("name", ["cleanrl", "torchrl"])
def test_the_command_line_chooses_a_preset_and_changes_it(name: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(name)
    presets = tyro.extras.subcommand_type_from_defaults(module.PRESETS)
    found = tyro.cli(presets, args=["selective", "--seed", "3"])
    assert found == replace(module.PRESETS["selective"], seed=3)
    assert tyro.cli(presets, args=["active"]) == module.PRESETS["active"]


@for_torchrl
@pytest.mark.parametrize("name", ["cleanrl", "torchrl"])
def test_training_and_judging_play_other_images(name: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(name)
    for preset in USUAL:
        args = small(module, preset)
        engines = [module.make_envs(args, 1, *split).unwrapped.engine for split in ((), ("val",), ("test",))]
        assert [engine.settings.split for engine in engines] == ["train", "val", "test"]
        first = engines[0].splits
        for engine in engines[1:]:
            np.testing.assert_equal([engine.splits.train, engine.splits.test], [first.train, first.test])
