"""The networks that value candidates: what they compute, and what does not matter to them."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from activelabel.agents.ddqn import DDQN
from activelabel.agents.qnetworks import LalRlNetwork, LalRlPolicy, QNetwork, QPolicy
from activelabel.errors import SettingsError
from activelabel.seeding import torch_stream

POLICIES: dict[str, Any] = dict(DDQN.policy_aliases)
NETWORKS = [QNetwork, LalRlNetwork]
N_STATE, N_FEATURES = 4, 3
ACTION = gym.spaces.MultiDiscrete([9, 9])


def space(n_state: int = N_STATE, n_features: int = N_FEATURES) -> gym.spaces.Dict:
    boxes = {"state": gym.spaces.Box(0, 1, (n_state,)), "candidates": gym.spaces.Box(0, 1, (9, n_features))}
    return gym.spaces.Dict({**boxes, "action_mask": gym.spaces.MultiBinary(9)})


def make_policy(cls: type[QPolicy] = QPolicy, **arguments: Any) -> QPolicy:
    return cls(space(), ACTION, lambda _: 1e-3, **arguments)


def observe(seed: int = 0, b: int = 3, m: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((b, m)) < 0.6).astype(np.int8)
    mask[:, 0] = 1
    candidates = rng.normal(3, 2, (b, m, N_FEATURES)).astype(np.float32)
    return {"state": rng.random((b, N_STATE)).astype(np.float32), "candidates": candidates, "action_mask": mask}


def inputs(seed: int = 0, b: int = 3, m: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(b, N_STATE, generator=generator), torch.randn(b, m, N_FEATURES, generator=generator)


def values(policy: QPolicy, observation: dict[str, np.ndarray]) -> np.ndarray:
    state, candidates, _, _ = policy.encode(observation)
    with torch.no_grad():
        return policy(state, candidates).numpy()


# -- what they compute ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(5,), (6, 5), (128, 128, 128)])
def test_the_network_is_an_mlp_over_state_and_candidate(hidden: tuple[int, ...]) -> None:
    network = QNetwork(N_STATE, N_FEATURES, hidden)
    network.reset_parameters(torch_stream(0, "weights"))
    sizes = [N_STATE + N_FEATURES, *hidden]
    plain = nn.Sequential()
    for a, b in zip(sizes, hidden, strict=False):
        plain += nn.Sequential(nn.Linear(a, b), nn.ReLU())
    plain.append(nn.Linear(hidden[-1], 1))
    linear = [layer for layer in plain if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        linear[0].weight.copy_(torch.cat([network.of_state.weight, network.of_candidate.weight], dim=1))
        linear[0].bias.copy_(network.of_state.bias)
        for mine, theirs in zip(network.layers, linear[1:], strict=True):
            theirs.load_state_dict(mine.state_dict())
    state, candidates = inputs()
    found = network(state, candidates)
    for i, j in np.ndindex(3, 7):
        expected = plain(torch.cat([state[i], candidates[i, j]]))[0]
        torch.testing.assert_close(found[i, j], expected, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters())


def test_lal_rl_s_network_is_as_published() -> None:
    network = LalRlNetwork(N_STATE, N_FEATURES)
    network.reset_parameters(torch_stream(0, "weights"), bias=-4.0)
    w = {name: tensor.detach().double().numpy() for name, tensor in network.named_parameters()}
    assert w["of_state.weight"].shape == (10, N_STATE)
    assert w["joint.weight"].shape == (5, 10 + N_FEATURES)
    assert w["value.weight"].shape == (1, 5)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    state, candidates = inputs()
    found = network(state, candidates).detach().numpy()
    for i, j in np.ndindex(3, 7):
        seen = sigmoid(w["of_state.weight"] @ state[i].numpy() + w["of_state.bias"])
        joint = np.concatenate([seen, candidates[i, j].numpy()])
        units = sigmoid(w["joint.weight"] @ joint + w["joint.bias"])
        assert found[i, j] == pytest.approx((w["value.weight"] @ units + w["value.bias"])[0], abs=1e-5)
    assert w["value.bias"] == pytest.approx([-4.0])
    assert (w["of_state.bias"] == 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_shift_moves_every_value_by_as_much(network: Any) -> None:
    made = network(N_STATE, N_FEATURES, (6, 5))
    made.reset_parameters(torch_stream(0, "weights"))
    before = made(*inputs()).detach()
    made.shift(2.5)
    torch.testing.assert_close(made(*inputs()).detach(), before + 2.5)


def test_weights_are_of_the_size_that_pytorch_draws() -> None:
    network = QNetwork(30, 3, (400, 300))
    network.reset_parameters(torch_stream(3, "weights"))
    rest = [(f"layers.{i}.{part}", size) for i, size in enumerate((400, 300)) for part in ("weight", "bias")]
    fans = {"of_state.weight": 33, "of_state.bias": 33, "of_candidate.weight": 33, **dict(rest)}
    for name, parameter in network.state_dict().items():
        bound = 1 / np.sqrt(fans.pop(name))
        assert float(parameter.abs().max()) <= bound * (1 + 1e-6), name
        if parameter.numel() > 200:
            assert float(parameter.std()) == pytest.approx(bound / np.sqrt(3), rel=0.1), name
    assert not fans


# -- what does not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_any_number_of_candidates_in_any_order(policy: type[QPolicy]) -> None:
    model = make_policy(policy)
    rng = np.random.default_rng(0)
    for m in (1, 2, 7, 200):
        observation = observe(m=m)
        found = values(model, observation)
        assert found.shape == (3, m)
        order = rng.permutation(m)
        moved = {n: a if n == "state" else a[:, order] for n, a in observation.items()}
        np.testing.assert_allclose(values(model, moved), found[:, order], rtol=1e-5, atol=1e-5)
        for i in range(3):
            alone = {name: array[i] for name, array in observation.items()}
            assert model.encode(alone)[3] is False
            np.testing.assert_allclose(values(model, alone), found[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_is_masked_does_not_matter(policy: type[QPolicy]) -> None:
    model, observation = make_policy(policy), observe()
    there = observation["action_mask"] == 1
    assert (~there).sum() > 0
    found = values(model, observation)[there]
    changed = {**observation, "candidates": np.where(there[:, :, None], observation["candidates"], 1e6)}
    np.testing.assert_array_equal(values(model, changed)[there], found)
    fewer = []
    for i, mine in enumerate(there):
        without = {"candidates": observation["candidates"][i, mine], "action_mask": np.ones(mine.sum(), np.int8)}
        fewer.append(values(model, {"state": observation["state"][i], **without})[0])
    np.testing.assert_allclose(np.concatenate(fewer), found, rtol=1e-4, atol=1e-5)


@given(
    seed=st.integers(0, 1000),
    mask=hnp.arrays(bool, (2, 6)),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    constant=st.booleans(),
)
def test_features_are_scaled_to_z_scores_over_the_mask(seed: int, mask: Any, scale: float, constant: bool) -> None:
    x = (np.random.default_rng(seed).normal(2, 1, (2, 6, 3)) * scale).astype(np.float32)
    if constant:
        x[:, :, 1] = 7.0
    found = QPolicy.scaled(torch.from_numpy(x), torch.from_numpy(mask)).numpy()
    for i, j in np.ndindex(2, 6):
        if not mask[i, j]:
            assert (found[i, j] == 0).all()
            continue
        seen = x[i, mask[i]].astype(np.float64)
        expected = (x[i, j] - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), 1e-6)
        np.testing.assert_allclose(found[i, j], expected.clip(-5, 5), atol=2e-3)


def test_a_far_candidate_is_five_deviations_away_at_most() -> None:
    x = torch.zeros(1, 100, 1)
    x[0, 0] = 1.0
    assert QPolicy.scaled(x, torch.ones(1, 100, dtype=torch.bool)).max() == 5


def test_scaling_is_the_default_of_ours_alone() -> None:
    observation = observe()
    raw = torch.from_numpy(observation["candidates"])
    for policy, scaled in ((make_policy(), True), (make_policy(standardize=False), False)):
        assert torch.equal(policy.encode(observation)[1], raw) is not scaled
    assert torch.equal(make_policy(LalRlPolicy).encode(observation)[1], raw)
    assert not torch.equal(make_policy(LalRlPolicy, standardize=True).encode(observation)[1], raw)


# -- weights and the target network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_weights_come_from_the_seed_alone(policy: type[QPolicy]) -> None:
    with reference.global_rng_untouched():
        first = make_policy(policy, init_seed=3)
        values(first, observe())
    torch.manual_seed(99)
    again, other = make_policy(policy, init_seed=3), make_policy(policy, init_seed=4)
    digests = [reference.digest(p.state_dict()) for p in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    assert all(torch.isfinite(p).all() for p in first.parameters())


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_target_network_starts_as_a_copy_that_is_not_trained(policy: type[QPolicy]) -> None:
    model = make_policy(policy)
    assert reference.digest(model.q.state_dict()) == reference.digest(model.q_target.state_dict())
    assert not any(p.requires_grad for p in model.q_target.parameters())
    optimised = {id(p) for group in model.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.q.parameters()}
    with torch.no_grad():
        next(model.q.parameters()).add_(1)
    assert reference.digest(model.q.state_dict()) != reference.digest(model.q_target.state_dict())


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (0,), (5, -1)])
def test_bad_sizes_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match=r"hidden=.*must be sizes of layers, such as"):
        make_policy(hidden=hidden)


@pytest.mark.parametrize("hidden", [(5,), (5, 5, 5)])
def test_lal_rl_s_network_has_two_hidden_layers(hidden: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="hidden="):
        make_policy(LalRlPolicy, hidden=hidden)


def test_observations_that_do_not_fit_are_refused() -> None:
    policy, observation = make_policy(), observe()
    for name in observation:
        with pytest.raises(SettingsError, match=f"no '{name}', only"):
            policy.encode({key: value for key, value in observation.items() if key != name})
    for name, length in (("state", N_STATE), ("candidates", N_FEATURES)):
        with pytest.raises(SettingsError, match=f"'{name}' of {length} numbers, got {length - 1}"):
            policy.encode({**observation, name: observation[name][..., :-1]})
    with pytest.raises(SettingsError, match="reads state and candidates"):
        QPolicy(gym.spaces.Dict(pool=gym.spaces.Box(0, 1, (3, 3))), ACTION, lambda _: 1e-3)
    with pytest.raises(NotImplementedError, match=r"DDQN\.predict"):
        policy.predict(observe(m=9))


@pytest.mark.usefixtures("every_torch_warning")
def test_a_read_only_observation_is_accepted() -> None:
    policy, observation = make_policy(), observe()
    expected = values(policy, observation)
    for array in observation.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(values(policy, observation), expected)


def test_small_first_weights_of_the_candidates() -> None:
    plain, small = make_policy(), make_policy(init_scale=0.1)
    for name, weight in plain.state_dict().items():
        factor = 0.1 if name.endswith("of_candidate.weight") else 1
        torch.testing.assert_close(small.state_dict()[name], factor * weight)
    for policy, scale in ((QPolicy, 0.0), (QPolicy, -1.0), (QPolicy, math.nan), (LalRlPolicy, 0.1)):
        with pytest.raises(SettingsError, match=f"init_scale={scale} must be positive"):
            make_policy(policy, init_scale=scale)
