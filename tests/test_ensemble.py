"""Ensembles of selectors: the mean of the logits of several trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from activelabel.agents import SELECTORS, Familiarity, Reinforce, join, select_images
from activelabel.data import Cohort, derived
from activelabel.errors import CheckpointError, SettingsError
from activelabel.evaluation import SelectiveRun
from activelabel.settings import SelectiveRunSettings

Make = Callable[..., Any]

TINY: dict[str, Any] = {
    **{"pool": 20, "query": 12, "k": 4, "updates": 3, "batch_size": 4, "n_samples": 2, "val_every": 1},
    **{"val_tasks": 6, "test_tasks": 4, "device": "cpu", "threads": 1, "selector": "mlp", "hidden": 8},
}


@pytest.fixture
def make_agent(make_vec: Make) -> Make:
    def make(selector: str = "mlp", seed: int = 0, env: Any = None, **policy: Any) -> Reinforce:
        name, env = SELECTORS[selector].__name__, make_vec(2) if env is None else env
        kwargs = {"hidden": 8, **policy}
        return Reinforce(name, env, batch_size=2, n_samples=2, policy_kwargs=kwargs, seed=seed, device="cpu")

    return make


def logits_of(model: Reinforce, observation: dict[str, Any], k: int) -> torch.Tensor:
    tensors, _ = model.policy.tensors(observation)
    with torch.no_grad():
        return model.policy.scored(tensors, [k], model.rule)[k][0]


def some_pools(model: Reinforce, seed: int = 0) -> dict[str, Any]:
    assert model._last_obs is None or isinstance(model._last_obs, dict)
    spaces: Any = model.observation_space
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(3, *box.shape)).astype(np.float32) for name, box in spaces.spaces.items()}


@pytest.mark.parametrize("selector", SELECTORS)
def test_the_logits_are_the_mean_of_those_of_the_members(make_agent: Make, selector: str, tmp_path: Path) -> None:
    members = [make_agent(selector, seed).learn(4) for seed in range(3)]
    joined, observation = join(members), some_pools(members[0])
    expected = torch.stack([logits_of(member, observation, 4) for member in members]).mean(dim=0)
    torch.testing.assert_close(logits_of(joined, observation, 4), expected, rtol=0, atol=1e-6)
    tensors, _ = joined.policy.tensors(observation)
    rule = joined.policy.scored(tensors, [4], joined.rule)[4][1]
    chosen = joined.select(observation, [4])[4]
    assert chosen.tolist() == rule.best(logits_of(joined, observation, 4), 4).tolist()
    joined.save(tmp_path / "joined")
    again = Reinforce.load(tmp_path / "joined", device="cpu")
    torch.testing.assert_close(logits_of(again, observation, 4), logits_of(joined, observation, 4), rtol=0, atol=0)
    assert again.standardizer is not None
    assert again.standardizer.equals(members[0].standardizer)  # type: ignore[arg-type]


def test_one_model_is_joined_to_itself(make_agent: Make) -> None:
    model = make_agent()
    observation = some_pools(model)
    assert torch.equal(logits_of(join([model]), observation, 4), logits_of(model, observation, 4))


def test_members_start_from_weights_of_their_own_and_learn_together(make_agent: Make, make_vec: Make) -> None:
    model = make_agent(members=3)
    weights = [member.logit.weight.clone() for member in model.policy.selector.members]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 3
    joined = join([make_agent("mlp", seed) for seed in range(3)])
    joined.set_env(make_vec(2))
    for trained in (model, joined):
        before = [parameter.clone() for parameter in trained.policy.parameters()]
        trained.learn(4)
        assert not any(torch.equal(a, b) for a, b in zip(before, trained.policy.parameters(), strict=True))


@pytest.mark.parametrize("selector", SELECTORS)
def test_the_images_of_a_large_pool_are_those_of_one_observation(
    make_agent: Make, cohort: Cohort, selector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "ROWS", 7)
    model = join([make_agent(selector, seed) for seed in range(3)])
    rows = np.random.default_rng(0).permutation(len(cohort))[:60]
    found, logits = select_images(model, cohort.embedded(), 5, rows, cohort.clinical_matrix())
    assert model.standardizer is not None
    observation = {
        "pool": model.standardizer.features(cohort.embedded()[rows])[None],
        "clinical": model.standardizer.clinical(cohort.clinical_matrix()[rows])[None],
    }
    places = model.select(observation, [5])[5][0]
    assert found.tolist() == rows[places].tolist()
    np.testing.assert_allclose(logits, logits_of(model, observation, 5)[0, places], rtol=1e-4, atol=1e-5)


def test_what_does_not_go_together_is_refused(make_agent: Make, make_vec: Make) -> None:
    model = make_agent()
    with pytest.raises(SettingsError, match="at least one model"):
        join([])
    others = {
        "hidden": make_agent(hidden=9),
        "policy": make_agent("gated"),
        "inputs": make_agent(inputs=["pool", "clinical"]),
        "k": make_agent(env=make_vec(2, k=3)),
    }
    for other in others.values():
        with pytest.raises(SettingsError, match="model 1 is another one than model 0: "):
            join([model, other])
    with pytest.raises(SettingsError, match="model 0 is an ensemble itself"):
        join([make_agent(members=2)])
    with pytest.raises(SettingsError, match="model 1 was trained on images that are scaled otherwise"):
        join([model, make_agent(env=make_vec(2, standardize=False))])
    guarded, d = make_agent(), model.policy.dims["pool"]
    images = np.random.default_rng(0).normal(size=(40, d)).astype(np.float32)
    guarded.familiarity = Familiarity.fit(images, images[:2])
    with pytest.raises(SettingsError, match="model 1 leaves pools that are not familiar to K-Medoids"):
        join([model, guarded])


@pytest.mark.parametrize("members", [0, -1])
def test_an_ensemble_has_members(make_agent: Make, members: int) -> None:
    with pytest.raises(SettingsError, match=f"members={members} must be at least 1"):
        make_agent(members=members)
    with pytest.raises(SettingsError, match="members"):
        SelectiveRunSettings(**{**TINY, "members": members})


def run(folder: Path, cohort: Cohort, **changes: Any) -> SelectiveRun:
    return SelectiveRun(folder, SelectiveRunSettings(**{**TINY, **changes}), False, cohort)


def reinforce(found: SelectiveRun) -> Reinforce:
    model = found.model()
    assert isinstance(model, Reinforce)
    return model


@pytest.mark.parametrize("left_out", [(), ("Pneumothorax",)])
def test_a_run_trains_the_members_and_joins_the_best_of_each(
    cohort: Cohort, tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    found = run(tmp_path / "ensemble", cohort, members=3, left_out=left_out)
    found.train()
    model, alone = reinforce(found), run(tmp_path / "alone", cohort, left_out=left_out)
    alone.train()
    members = [Reinforce.load(tmp_path / "ensemble" / f"member-{i}.zip", device="cpu") for i in range(3)]
    assert len({member.seed for member in members}) == 3
    observation = some_pools(model)
    # The first member is the training of the run's own seed, the best of its validations.
    assert torch.equal(logits_of(members[0], observation, 4), logits_of(reinforce(alone), observation, 4))
    torch.testing.assert_close(logits_of(model, observation, 4), logits_of(join(members), observation, 4))
    for member, noted in zip(members, model.notes["members"], strict=True):
        assert noted == {name: member.notes[name] for name in ("best_update", "best")}
    tasks = found.val.tasks(range(6))
    chosen = model.select(found.val.observe(tasks), [4])[4]
    assert model.notes["best"] == pytest.approx(found.val.score(tasks, chosen[:, None]).reward.mean())
    updates = ", ".join(str(member.notes["best_update"]) for member in members)
    on = " of Pneumothorax, left out of training" if left_out else ""
    said = f"the mean of the logits of 3 trainings, each best on meta-validation{on}: update {updates}; together AUROC "
    assert found.best().startswith(said)
    assert {row["strategy"] for row in found.evaluate().rows} >= {"reinforce", "kmedoids"}


def test_an_interrupted_ensemble_goes_on(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole", cohort, members=2)
    whole.train()
    parts, train = run(tmp_path / "parts", cohort, members=2), SelectiveRun._train

    def interrupted(self: SelectiveRun, name: str, inputs: Any, s: SelectiveRunSettings, *more: Any) -> None:
        train(self, name, inputs, replace(s, updates=2) if name == "member-1" else s, *more)
        if name == "member-1":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SelectiveRun, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parts.train()
    assert not (tmp_path / "parts" / "model.zip").exists()
    with pytest.raises(CheckpointError, match="this run has no model yet"):
        parts.model()
    again = run(tmp_path / "parts", cohort, members=2)
    again.train()
    assert again.model().notes == whole.model().notes
    observation = some_pools(reinforce(whole))
    assert torch.equal(logits_of(reinforce(again), observation, 4), logits_of(reinforce(whole), observation, 4))
