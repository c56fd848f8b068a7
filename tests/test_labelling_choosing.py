"""What chooses images of a folder, the reasons that it gives, and how labels are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelling_play import BACKBONE, fill_in, rows_of, write_images
from plugin_play import HERE

from activelabel.__main__ import main
from activelabel.agents import DDQN, SELECTORS, Reinforce
from activelabel.data import Cohort, Source, SyntheticSettings, make_synthetic
from activelabel.envs import ActiveLabelVectorEnv, SelectiveLabelVectorEnv
from activelabel.envs.candidates import LONG
from activelabel.envs.learners import make_learner
from activelabel.errors import SettingsError
from activelabel.files import write_text
from activelabel.labelling.choosing import STRATEGIES, make_chooser, torn
from activelabel.labelling.judging import cross_validate, wilson
from activelabel.labelling.project import ProjectSettings
from activelabel.labelling.seeing import View, latent, observe_as_agent
from activelabel.settings import ActiveRunSettings, SelectiveRunSettings

N, K = 60, 7
CLASSES = ("A", "B", "C")


@pytest.fixture(scope="module")
def view() -> View:
    """Three clusters; the first twelve images are labelled."""
    rng = np.random.default_rng(0)
    label = np.arange(N) % 3
    x = (3 * rng.standard_normal((3, 5))[label] + rng.standard_normal((N, 5))).astype(np.float32)
    cohort = Cohort(np.zeros((N, 1), np.int8), ("unlabelled",), x, source=Source(name="clusters"))
    order = rng.permutation(np.arange(12, N))
    return View(cohort, order, np.arange(12), label[:12].astype(np.int64), CLASSES, make_learner("softmax"))


def unlabelled(view: View) -> View:
    nothing = np.zeros(0, np.int64)
    return View(view.cohort, view.candidates, nothing, nothing, (), view.learner)


def settings(**more: Any) -> ProjectSettings:
    return ProjectSettings("/images", "b", None, None, "b 1", **more)


def euclidean(view: View, a: Any, b: Any) -> float:
    space = latent(view.cohort)[1].double().numpy()
    return float(np.linalg.norm(space[a] - space[b]))


@pytest.mark.parametrize("name", [*STRATEGIES, "skactiveml:CoreSet", f"{HERE}MyMargin"])
def test_every_strategy_chooses_different_images_and_says_why(view: View, name: str) -> None:
    if name.startswith("skactiveml"):
        pytest.importorskip("skactiveml", reason="the extra 'baselines' is not installed")
    for known in (view, unlabelled(view)):
        chooser = make_chooser(settings(strategy=name), 1)
        if chooser.needs_labels and not len(known.labelled):
            continue
        for k in (1, K, len(view.candidates)):
            chosen = make_chooser(settings(strategy=name), 1).choose(known, k)
            rows = [row for row, _, _ in chosen]
            assert len(set(rows)) == len(rows) == k
            assert set(rows) <= set(view.candidates.tolist())
            assert all(why and why[0].isalpha() for _, _, why in chosen)
            assert chosen == make_chooser(settings(strategy=name), 1).choose(known, k)
            scores = [score for _, score, _ in chosen]
            if name in ("margin", "entropy", "uncertainty", "kmedoids"):
                assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def test_clusters_and_distances_are_what_the_reasons_say(view: View) -> None:
    chosen = make_chooser(settings(strategy="kmedoids"), 1).choose(view, K)
    medoids = [row for row, _, _ in chosen]
    nearest = [min(medoids, key=lambda m: euclidean(view, row, m)) for row in view.candidates]
    for row, score, why in chosen:
        assert score == nearest.count(row)
        many = f"the centre of a cluster of {nearest.count(row)} similar images"
        assert why == (many if score > 1 else "unlike the others: stands for itself alone")
    before = view.labelled.tolist()
    for row, score, _ in make_chooser(settings(strategy="k-center"), 1).choose(view, K):
        assert score == pytest.approx(min(euclidean(view, row, other) for other in before), abs=1e-5)
        before.append(row)


def test_doubt_names_two_classes_and_not_the_likelier() -> None:
    told = torn(CLASSES, np.array([[0.1, 0.3, 0.6], [0.1, 0.6, 0.3]], np.float32))
    assert told == ["the classifier's probabilities of B and C differ by 0.30"] * 2


# -- trained agents ---------------------------------------------------------------------------------------------------


def selective_run(folder: Path, selector: str = "bilstm") -> Path:
    """Write the directory of a run of SelectiveLabel-v0 on five features."""
    run = SelectiveRunSettings(k=4, pool=20, query=12, hidden=8, data="five.npz", selector=selector)
    cohort = make_synthetic(SyntheticSettings(n=3000, dim=5, rank=4))
    env = SelectiveLabelVectorEnv(2, cohort, device="cpu", **run.env_arguments())
    arguments = {**run.agent_arguments(), "batch_size": 2, "n_samples": 2, "seed": 0, "device": "cpu"}
    Reinforce(env=env, **arguments).save(folder / "model.zip")
    write_text(folder / "config.yaml", run.to_yaml())
    return folder


@pytest.fixture(scope="module")
def selective(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return selective_run(tmp_path_factory.mktemp("selective"))


@pytest.fixture(scope="module")
def active(tmp_path_factory: pytest.TempPathFactory, blobs: Cohort) -> tuple[Path, ActiveRunSettings]:
    """The directory of a run of ActiveLabel-v0 that looks at everything, and its settings."""
    folder = tmp_path_factory.mktemp("active")
    run = ActiveRunSettings(
        features=LONG, state=("confidence", "progress"), state_images=9, pool=60, budget=12, batch=3, components=4
    )
    env = ActiveLabelVectorEnv(2, blobs, device="cpu", **run.env_arguments())
    DDQN(env=env, seed=0, device="cpu").save(folder / "model.zip")
    write_text(folder / "config.yaml", run.to_yaml())
    return folder, run


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_ranks_by_its_own_scores(view: View, tmp_path: Path, selector: str) -> None:
    folder = selective_run(tmp_path, selector)
    chooser = make_chooser(settings(model=str(folder)), 1, "cpu")
    chosen = chooser.choose(view, K)
    model = Reinforce.load(folder / "model.zip", device="cpu")
    assert model.standardizer is not None
    pool = model.standardizer.features(view.cohort.embedded()[view.candidates])
    logits, rule = model.policy.scored({"pool": torch.from_numpy(pool)[None]}, [K], model.rule)[K]
    best = rule.best(logits, K)[0].numpy()
    assert [row for row, _, _ in chosen] == view.candidates[best].tolist()
    assert [score for _, score, _ in chosen] == pytest.approx(logits[0, best].tolist(), abs=1e-5)
    assert chosen[1][2].startswith("rank 2 of 48 images by the agent reinforce")
    assert "out of 20 images, here out of 48" in chooser.notes(48)[0]


def test_an_agent_sees_what_it_was_trained_on(view: View, active: tuple[Path, ActiveRunSettings]) -> None:
    _, run = active
    states = np.arange(9)
    observation, predicted = observe_as_agent(view, run, states)
    assert observation["state"].shape == (1, 10)
    assert (np.diff(observation["state"][0, :9]) >= 0).all()
    assert observation["state"][0, 9] == pytest.approx((12 - 3) / 12)
    described = dict(zip(run.features, observation["candidates"][0].T, strict=True))
    space = latent(view.cohort, run.components)[1].double().numpy()
    own, known = space[view.candidates], space[view.labelled]
    apart = np.linalg.norm(own[:, None] - known[None], axis=2)
    np.testing.assert_allclose(described["labelled"], apart.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(described["nearest"], apart.min(axis=1), rtol=1e-4)
    among = np.linalg.norm(own[:, None] - own[None], axis=2)
    np.testing.assert_allclose(described["unlabelled"], among.mean(axis=1), rtol=1e-3)
    p = predicted.double().numpy()
    np.testing.assert_allclose(described["confidence"], p.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(described["balance"], (p / 3).sum(axis=1), rtol=1e-5)


def test_an_agent_ranks_by_its_values(view: View, active: tuple[Path, ActiveRunSettings]) -> None:
    chooser = make_chooser(settings(model=str(active[0])), 1, "cpu")
    assert chooser.needs_labels
    for k in (1, K):
        chosen = chooser.choose(view, k)
        scores = [score for _, score, _ in chosen]
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
        assert len({row for row, _, _ in chosen}) == k


def test_other_features_are_refused_before_anything_is_embedded(
    selective: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    truth = write_images(Path("images"), [f"{i}.png" for i in range(8)])
    command = ["select", "--images", "images", "--out", "a.csv", "--k", "4", "--model", str(selective)]
    assert main([*command, "--backbone", "resnet18", "--weights", "random", "--size", "32", "--no-progress"]) == 2
    told = capsys.readouterr().err
    assert "trained on 5 features an image; backbone 'resnet18' gives 512" in told
    assert "--backbone" in told
    assert not list(tmp_path.rglob("features-*"))
    assert main([*command, *BACKBONE]) == 0
    assert len(rows_of(Path("a.csv"))) == 4
    fill_in(Path("a.csv"), truth)
    assert main(["update", "--labels", "a.csv", "--no-progress", "--device", "cpu", "--strategy", "entropy"]) == 0
    assert rows_of(Path("a-2.csv"))[0]["why"].startswith("rank 1 of 4 images by entropy")


def test_runs_that_cannot_choose_are_refused(tmp_path: Path, active: tuple[Path, ActiveRunSettings]) -> None:
    with pytest.raises(SettingsError, match=r"is .* the directory of a run"):
        make_chooser(settings(model=str(tmp_path)), 1)
    text = (active[0] / "config.yaml").read_text()
    write_text(
        tmp_path / "config.yaml",
        text.replace("learner: softmax", "learner: finetune").replace("components: 4", "components: null"),
    )
    (tmp_path / "model.zip").write_bytes((active[0] / "model.zip").read_bytes())
    with pytest.raises(SettingsError, match="fine-tuned"):
        make_chooser(settings(model=str(tmp_path)), 1, "cpu")


# -- judging ----------------------------------------------------------------------------------------------------------


def test_separable_classes_are_recognised_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(2), 20)
    noise = torch.from_numpy(rng.standard_normal((40, 6)).astype(np.float32))
    clear = noise + 20 * torch.from_numpy(y)[:, None]
    learner = make_learner("softmax")
    found = cross_validate(clear, y, ("A", "B"), None, learner).accuracy
    assert found is not None
    assert (found.mean, found.n) == (1.0, 40)
    assert found.low == pytest.approx(wilson(1.0, 40).low)
    judged = cross_validate(noise, y, ("A", "B"), None, learner)
    assert judged.accuracy is not None
    assert judged.accuracy.low < 0.5 < judged.accuracy.high
    assert judged.commonest == 0.5


def test_images_of_one_patient_do_not_tell_each_other() -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(12), 4)
    x = 20 * rng.standard_normal((12, 30))[patient] + rng.standard_normal((48, 30))
    y = rng.permutation(np.arange(12) % 2)[patient]
    x = torch.from_numpy(x.astype(np.float32))
    learner = make_learner("softmax")
    apart = cross_validate(x, y, ("A", "B"), patient.astype(str), learner)
    mixed = cross_validate(x, y, ("A", "B"), None, learner)
    assert mixed.accuracy is not None
    assert apart.accuracy is not None
    assert mixed.accuracy.mean > 0.95
    assert apart.accuracy.mean < 0.8
    assert (apart.accuracy.n, apart.patients) == (12, 12)
    assert apart.accuracy.half_width > mixed.accuracy.half_width


def test_too_few_labels_are_not_judged() -> None:
    learner = make_learner("softmax")
    x = torch.eye(5)
    assert cross_validate(x[:0], np.zeros(0, np.int64), (), None, learner).lines()[0] == "0 labels"
    alone = cross_validate(x, np.array([0, 0, 0, 0, 1]), ("A", "B"), None, learner)
    assert alone.accuracy is None
    assert "not known yet" in alone.lines()[1]
    same = cross_validate(x, np.array([0, 0, 0, 1, 1]), ("A", "B"), np.array(list("ppppq")), learner)
    assert same.accuracy is None  # B is of two patients, A of one
    three = cross_validate(x, np.array([0, 0, 1, 1, 2]), ("A", "B", "C"), None, learner)
    assert three.accuracy is not None
    assert three.accuracy.n == 4
    assert "not judged, with fewer than two labels: C" in three.lines()


def test_the_interval_is_wilsons() -> None:
    found = wilson(0.5, 10)
    assert (found.low, found.high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert wilson(1.0, 5).high == 1.0
