"""What was tried for conditions that are left out: every row of ``benchmarks.tried``, on tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from activelabel.data import Cohort
from activelabel.evaluation import SelectiveRun
from activelabel.seeding import torch_stream
from activelabel.settings import SelectiveRunSettings
from benchmarks import left_out, tried
from benchmarks.tried_selectors import FORBIDDEN, Pruned, orthogonal
from benchmarks.tried_tasks import MixedNegatives, PseudoConditions

HELD_OUT = ("Edema", "Atelectasis")
LEFT_OUT = ("Cardiomegaly",)
TINY: dict[str, Any] = {
    **{"pool": 20, "query": 12, "k": 4, "updates": 2, "batch_size": 4, "n_samples": 2, "hidden": 8, "val_every": 1},
    **{"val_tasks": 6, "held_out": HELD_OUT, "left_out": LEFT_OUT, "device": "cpu", "threads": 1, "against": ()},
}


def settings(name: str, **changes: Any) -> SelectiveRunSettings:
    return SelectiveRunSettings(**{**TINY, **tried.VARIANTS[name].settings, **changes})


def run(name: str, folder: Path, cohort: Cohort, **changes: Any) -> SelectiveRun:
    return SelectiveRun(folder, settings(name, **changes), False, cohort)


@pytest.mark.parametrize("name", tried.VARIANTS)
def test_every_row_is_the_same_for_the_same_seed(name: str, cohort: Cohort) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 (that it is not used)
    found = tried.gains(name, settings(name), cohort)
    assert {len(curve) for curve in found.values()} == {2}
    assert np.isfinite(list(found.values())).all()
    assert tried.gains(name, settings(name), cohort) == found
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize("name", tried.VARIANTS)
def test_every_selector_chooses_k_different_images_of_the_pool(name: str, cohort: Cohort, tmp_path: Path) -> None:
    found = run(name, tmp_path, cohort)
    model = tried.learner(tried.VARIANTS[name], found, 0)
    observation = found.val.observe(found.val.tasks(range(3)))
    for training in (False, True):
        model.policy.set_training_mode(training)
        for deterministic in (False, True):
            for k, chosen in model.select(observation, [4, 7], deterministic).items():
                assert chosen.shape == (3, k)
                assert chosen.min() >= 0
                assert chosen.max() < 20
                assert all(len(set(each.tolist())) == k for each in chosen)


@pytest.mark.parametrize("name", tried.VARIANTS)
def test_every_selector_learns(name: str, cohort: Cohort, tmp_path: Path) -> None:
    model = tried.learner(tried.VARIANTS[name], run(name, tmp_path, cohort), 0)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(4, log_interval=0)
    after = model.policy.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before[key], value) for key, value in after.items())


def test_the_mlp_is_that_of_the_package(cohort: Cohort, tmp_path: Path) -> None:
    whole = run("mlp", tmp_path, cohort)
    whole.train()
    history = whole.model().notes["history"]
    expected = [value - whole.references["kmedoids"] for _, value in history]
    assert tried.gains("mlp", settings("mlp"), cohort)["mlp"][: len(expected)] == expected


def test_an_ensemble_is_judged_beside_its_members(cohort: Cohort, tmp_path: Path) -> None:
    variant, own = tried.VARIANTS["ensemble of 5"], settings("ensemble of 5")
    rows = tried.gains("ensemble of 5", own, cohort)
    assert list(rows) == ["ensemble of 5", "ensemble of 5: members"]
    found, judges = run("ensemble of 5", tmp_path, cohort), []
    for i in range(variant.members):
        judges.append(tried.Judge(found))
        model = tried.learner(variant, found, own.seed * variant.members + i)
        model.learn(own.updates * own.batch_size, callback=judges[-1], log_interval=0)
    clustering = found.references["kmedoids"]
    members = np.array([judge.values for judge in judges]) - clustering
    assert rows["ensemble of 5: members"] == pytest.approx(members.mean(axis=0).tolist())
    last = [judge.networks[-1] for judge in judges]
    observation = found.val.observe(found.val.tasks(range(own.val_tasks)))
    images = torch.from_numpy(observation["pool"])
    logits = np.stack([network(images).detach().numpy() for network in last]).mean(axis=0)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, None, : own.k]
    reward = found.val.score(found.val.tasks(range(own.val_tasks)), chosen).reward
    assert rows["ensemble of 5"][-1] == pytest.approx(reward.mean() - clustering)


def test_rotations_are_orthogonal() -> None:
    found = orthogonal(5, 7, torch_stream(0, "test"))
    assert torch.allclose(found @ found.transpose(1, 2), torch.eye(7).expand(5, 7, 7), atol=1e-5)
    assert not torch.allclose(found[0], found[1])


def test_of_several_clusterings_the_one_with_the_largest_sum_of_logits_is_taken(cohort: Cohort, tmp_path: Path) -> None:
    found = run("three clusterings", tmp_path, cohort)
    observation = found.val.observe(found.val.tasks(range(6)))
    kinds = tried.VARIANTS["three clusterings"].arguments["kinds"]
    totals = []
    for chosen in (kinds, *((kind,) for kind in kinds)):
        model = tried.learner(replace(tried.VARIANTS["three clusterings"], arguments={"kinds": chosen}), found, 0)
        model.policy.set_training_mode(False)
        tensors, _ = model.policy.tensors(observation)
        logits, rule = model.policy.scored(tensors, [4], model.rule)[4]
        totals.append(logits.gather(-1, rule.best(logits, 4)).sum(dim=-1))
    assert torch.allclose(totals[0], torch.stack(totals[1:]).amax(dim=0))
    assert not any(torch.allclose(totals[0], each) for each in totals[1:])


def test_medoids_alone_are_chosen(cohort: Cohort, tmp_path: Path) -> None:
    found = run("K of 2K medoids", tmp_path, cohort)
    model = tried.learner(tried.VARIANTS["K of 2K medoids"], found, 0)
    tensors, _ = model.policy.tensors(found.val.observe(found.val.tasks(range(3))))
    logits, _ = model.policy.scored(tensors, [4], model.rule)[4]
    assert ((logits > FORBIDDEN).sum(dim=-1) == 8).all()


def test_pruning_keeps_some_of_what_was_drawn_and_knows_how_likely_that_was() -> None:
    rng = torch_stream(0, "test")
    rule, logits = Pruned(torch.randn(2, 12, 3, generator=rng).numpy()), torch.randn(2, 12, generator=rng)
    chosen = rule.sample(logits, 3, 5, rng)
    assert rule._drawn is not None
    assert (chosen[..., None] == rule._drawn[:, :, None, :]).any(dim=-1).all()
    left, expected = logits[1].exp().double(), 0.0
    for image in rule._drawn[1, 2].tolist():
        expected += float(torch.log(left[image] / left.sum()))
        left[image] = 0
    assert rule.log_prob(logits, chosen)[1, 2].item() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="not drawn by this rule"):
        rule.log_prob(logits, chosen[:, :2])


def test_changed_tasks_have_no_image_of_what_is_held_out_or_left_out(cohort: Cohort, tmp_path: Path) -> None:
    engine = run("mlp", tmp_path, cohort).train_env.engine
    plain = engine.sampler.batch(range(40))
    columns = [cohort.class_index(name) for name in (*HELD_OUT, *LEFT_OUT)]
    train = set(engine.splits.train.tolist())
    for kind in (MixedNegatives, PseudoConditions):
        tasks = kind(engine).batch(range(40))
        again = kind(engine).batch([7])
        assert np.array_equal(again.pool[0], tasks.pool[7])
        assert np.array_equal(tasks.pool_labels, plain.pool_labels)
        for i in range(len(tasks)):
            images, old = (np.concatenate([t.pool[i], t.query[i]]) for t in (tasks, plain))
            assert len(set(images.tolist())) == len(images)
            assert set(images.tolist()) <= train
            new = images[~np.isin(images, old)]
            assert not np.isin(cohort.labels[np.ix_(new, columns)], (1, -1)).any()


def test_mixed_negatives_are_half_normal_and_never_of_the_condition(cohort: Cohort, tmp_path: Path) -> None:
    engine = run("mlp", tmp_path, cohort).train_env.engine
    tasks = MixedNegatives(engine).batch(range(20))
    for i in range(len(tasks)):
        rows = np.concatenate([tasks.pool[i][~tasks.pool_labels[i]], tasks.query[i][~tasks.query_labels[i]]])
        normal = cohort.labels[rows, cohort.normal] == 1
        assert normal.sum() == len(rows) - round(len(rows) / 2)
        assert (cohort.labels[rows[~normal], tasks.condition[i]] == 0).all()


def test_half_of_the_tasks_have_a_pseudo_condition(cohort: Cohort, tmp_path: Path) -> None:
    engine = run("mlp", tmp_path, cohort).train_env.engine
    tasks = PseudoConditions(engine).batch(range(200))
    pseudo = tasks.condition == cohort.normal
    assert 70 < pseudo.sum() < 130
    plain = engine.sampler.batch(range(200))
    assert np.array_equal(tasks.pool[~pseudo], plain.pool[~pseudo])
    for i in np.flatnonzero(pseudo)[:10]:
        negatives = tasks.pool[i][~tasks.pool_labels[i]]
        assert (cohort.labels[negatives, cohort.normal] == 1).all()


def test_conditions_are_left_out_in_groups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    s = tried.Settings(selectors=("mlp",), seeds=(0, 1), at_once=4, updates=40, jobs=1)
    planned = list(left_out.cells(s, {"mlp": {"selector": "mlp"}}))
    groups = list(dict.fromkeys(settings.left_out for _, _, settings in planned))
    assert [len(group) for group in groups] == [4, 2]
    assert len(planned) == 4
    monkeypatch.setattr(tried, "gains", lambda name, settings: {name: [0.1, 0.2], "its members": [0.0, 0.1]})
    tried.measure(s)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[1:] == ["mlp", "4", "+0.1000", "+0.2000", "+0.2000", "+0.2000", "+0.2000"]
    assert lines[3].split()[1:3] == ["its", "members"]
