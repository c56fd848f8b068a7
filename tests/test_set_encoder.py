"""The set encoder for Stable-Baselines3: what it does with the order of candidates, with masks and with files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from stable_baselines3 import DQN, PPO

from activelabel.agents.set_encoder import SetDQNPolicy, SetExtractor, SetPolicy
from activelabel.envs.sb3 import GymnasiumVecEnv
from activelabel.envs.wrappers import VectorScoresToTopK
from activelabel.errors import SettingsError

SMALL: dict[str, Any] = {"features_extractor_kwargs": {"hidden": 8}}
UPDATES: dict[str, Any] = {"n_steps": 16, "batch_size": 24, "seed": 0, "device": "cpu"}
N, D = 7, 5
OBSERVATION = Dict(
    pool=Box(-3, 3, (N, D), np.float32),
    action_mask=MultiBinary(N),
    state=Box(0, 1, (N,), np.float32),  # as many numbers as candidates, and still the whole's
    labelled=Box(-1, 1, (N, 2), np.float32),  # a row for each label: not read
)


def observation(batch: int = 4) -> dict[str, torch.Tensor]:
    OBSERVATION.seed(0)
    rows = [OBSERVATION.sample() for _ in range(batch)]
    return {name: torch.as_tensor(np.stack([row[name] for row in rows])) for name in OBSERVATION.spaces}


def awake(policy: Any) -> Any:
    """Weights that are not almost nothing, as the last layer's are at first."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 3)
    return policy


def scores_of(policy: Any, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    """The scores, slot by slot."""
    if isinstance(policy, SetDQNPolicy):
        return policy.q_net(seen)
    distribution = policy.get_distribution(seen)
    if isinstance(policy.action_space, Box):
        return distribution.distribution.mean
    if isinstance(policy.action_space, MultiDiscrete):
        several = getattr(distribution, "distribution", None) or distribution.distributions
        return torch.cat([d.logits for d in several], dim=1)
    return distribution.distribution.logits


@pytest.mark.parametrize("kind", ["PPO", "MaskablePPO", "DQN"])
@pytest.mark.parametrize(
    "space", [Discrete(N), MultiDiscrete([N] * 3), Box(-1, 1, (N,))], ids=["one", "three", "scores"]
)
def test_the_scores_move_with_the_candidates_and_the_value_stays(kind: str, space: gym.Space[Any]) -> None:
    cls: Any = {"PPO": SetPolicy, "DQN": SetDQNPolicy}.get(kind)
    if kind == "MaskablePPO":
        pytest.importorskip("sb3_contrib")
        from activelabel.agents.maskable import MaskableSetPolicy as cls  # type: ignore[no-redef]
    if (kind == "MaskablePPO" and isinstance(space, Box)) or (kind == "DQN" and not isinstance(space, Discrete)):
        pytest.skip("the algorithm does not take these actions")
    policy = awake(cls(OBSERVATION, space, lambda _: 1e-3, **SMALL))
    seen = observation()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    permuted = {**seen, **{name: seen[name][:, order] for name in ("pool", "action_mask")}}
    slots = 3 if isinstance(space, MultiDiscrete) else 1
    with torch.no_grad():
        before, after = (scores_of(policy, x).reshape(4, slots, N) for x in (seen, permuted))
        torch.testing.assert_close(after, before[:, :, order])
        assert (before.std(dim=-1) > 1e-3).all()
        # The state is of the whole: in another order it is another state.
        other = scores_of(policy, {**seen, "state": seen["state"][:, order]}).reshape(4, slots, N)
        assert (other - before).abs().max() > 1e-4
        unread = scores_of(policy, {**seen, "labelled": seen["labelled"] * 0})
        torch.testing.assert_close(unread.reshape(4, slots, N), before)
        if kind != "DQN":
            torch.testing.assert_close(policy.predict_values(permuted), policy.predict_values(seen))


def test_the_means_of_scores_stay_inside_the_box_and_differ() -> None:
    policy = awake(SetPolicy(OBSERVATION, Box(-1, 1, (N,)), lambda _: 1e-3, **SMALL))
    with torch.no_grad():
        policy.action_net.score.weight.mul_(3)
        means = scores_of(policy, observation())
    assert means.abs().max() < 1
    assert means.abs().max() > 0.9
    assert len(means.unique()) == means.numel()


def test_dqn_values_what_is_labelled_lowest() -> None:
    policy = awake(SetDQNPolicy(OBSERVATION, Discrete(N), lambda _: 1e-3, **SMALL))
    seen = observation(50)
    with torch.no_grad():
        values = policy.q_net(seen)
        unmasked = policy.q_net({**seen, "action_mask": torch.ones(50, N)})
    allowed = seen["action_mask"].bool()
    for row, mask in zip(values, allowed, strict=True):
        assert not mask.any() or row[~mask].max() < row[mask].min()
    assert not allowed.gather(1, unmasked.argmax(dim=1, keepdim=True)).all()
    greedy = torch.as_tensor(policy.predict({k: v.numpy() for k, v in seen.items()}, deterministic=True)[0])
    assert (allowed.gather(1, greedy[:, None])[:, 0] | ~allowed.any(dim=1)).all()


def test_an_embedding_sees_what_its_candidate_stands_among() -> None:
    extractor = awake(SetExtractor(OBSERVATION, hidden=8))
    seen = observation(1)
    with torch.no_grad():
        before = extractor(seen)
        assert before.shape == (1, extractor.features_dim) == (1, N * 8 + 16 + N)
        seen["pool"][0, 6] += 3
        moved = (extractor(seen) - before)[0, : N * 8].unflatten(0, (N, 8))
    assert (moved.abs().amax(dim=1) > 1e-4).all()


@pytest.mark.parametrize("form", ["PPO", "DQN", "MaskablePPO"])
def test_saved_by_sb3_it_is_the_same(make_vec: Any, make_active_vec: Any, tmp_path: Path, form: str) -> None:
    one_label = GymnasiumVecEnv(make_active_vec(3, batch=1, budget=6))
    if form == "MaskablePPO":
        contrib = pytest.importorskip("sb3_contrib")
        from activelabel.agents.maskable import MaskableSetPolicy

        model = contrib.MaskablePPO(MaskableSetPolicy, one_label, policy_kwargs=SMALL, **UPDATES)
    elif form == "PPO":
        model = PPO(SetPolicy, GymnasiumVecEnv(VectorScoresToTopK(make_vec(3))), policy_kwargs=SMALL, **UPDATES)
    else:
        model = DQN(SetDQNPolicy, one_label, policy_kwargs=SMALL, buffer_size=9, seed=0, device="cpu")
    awake(model.policy)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    seen = model.env.reset()
    np.testing.assert_array_equal(
        loaded.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )
    assert type(loaded.policy) is type(model.policy)


def test_the_weights_fit_another_number_of_candidates(make_vec: Any) -> None:
    envs = [GymnasiumVecEnv(VectorScoresToTopK(make_vec(3, pool=pool))) for pool in (20, 31)]
    small, large = (PPO(SetPolicy, env, **UPDATES) for env in envs)
    awake(small.policy)
    large.set_parameters(small.get_parameters())
    seen = large.env.reset()
    assert large.predict(seen)[0].shape == (3, 31)


@pytest.mark.parametrize(
    ("observed", "space", "kwargs", "message"),
    [
        (Box(-1, 1, (9,)), Discrete(9), {}, "reads a Dict with keys of one row a candidate"),
        (Dict(other=Box(-1, 1, (9,))), Discrete(9), {}, "reads a Dict"),
        (Dict(pool=Box(-1, 1, (9, 2)), action_mask=MultiBinary(8)), Discrete(9), {}, "reads a Dict"),
        (OBSERVATION, Discrete(N + 1), {}, "scores 7 candidates"),
        (OBSERVATION, MultiDiscrete([N, N + 1]), {}, "scores 7 candidates"),
        (OBSERVATION, Box(-1, 1, (N,)), {"use_sde": True}, "no state-dependent exploration"),
    ],
)
def test_what_it_cannot_read_is_refused(observed: Any, space: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SetPolicy(observed, space, lambda _: 1e-3, **kwargs)
