"""The fine-tuned network as a learner: alone, in batches, against the same thing written plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import finetune_play
import numpy as np
import pytest
import torch
from finetune_play import QUICK, game, plain_fit, plain_look
from torch import Tensor, nn

from activelabel.data.networks import build_network
from activelabel.envs.finetune import FineTune
from activelabel.envs.learners import IMAGE_LEARNERS, make_learner
from activelabel.errors import CheckpointError, SettingsError


def fit(learner: Any, played: dict[str, Any]) -> Any:
    return learner.fit(played["x"], played["y"], played["weight"], played["n_classes"], None)


def weights(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one batch": ({"batch_size": 32}, {}),
    "unequal batches": ({"batch_size": 4, "seed": 3}, {}),
    "colours": ({}, {"colours": 3}),
    "two classes": ({"epochs": 6}, {"classes": 2}),
    "frozen means": ({"network": "finetune_play:normed"}, {}),
    "free means": ({"network": "finetune_play:normed", "weights": "random"}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_plain_code_does(name: str) -> None:
    arguments, sizes = CASES[name]
    learner = FineTune(**{**QUICK, **arguments})
    played = game(1, 2, 11, **{"classes": 3, **sizes})
    model = fit(learner, played)
    probabilities, latent = model.predict_proba(played["other"]), model.latent(played["other"])
    assert probabilities.dtype == latent.dtype == torch.float32
    assert (probabilities.shape, latent.shape) == ((2, 30, played["n_classes"]), (2, 30, learner.latent_size))
    images = played["x"] if played["x"].shape[-1] == 3 else played["x"][..., 0]
    other = played["other"] if played["other"].shape[-1] == 3 else played["other"][..., 0]
    for i in range(2):
        network = plain_fit(learner, images[i].numpy(), played["y"][i].tolist(), played["n_classes"])
        for found, expected in zip((probabilities[i], latent[i]), plain_look(network, other.numpy()), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_batch_equals_one_by_one_to_the_last_bit() -> None:
    played, learner = game(2, 3, 9, 3), FineTune(**{**QUICK, "network": "finetune_play:dropping"})
    own = torch.stack([played["other"][i : i + 20] for i in range(3)])
    model = fit(learner, played)
    shared, each = model.predict_proba(played["other"]), model.predict_proba(own)
    np.testing.assert_allclose(shared.sum(dim=-1), 1, rtol=0, atol=1e-6)
    for i in range(3):
        alone = fit(learner, {**played, **{key: played[key][i : i + 1] for key in ("x", "y", "weight")}})
        assert torch.equal(alone.predict_proba(played["other"])[0], shared[i])
        assert torch.equal(alone.predict_proba(own[i : i + 1])[0], each[i])
        np.testing.assert_allclose(each[i], shared[i, i : i + 20], rtol=0, atol=1e-6)


def test_a_place_of_weight_0_is_as_if_it_were_not_there() -> None:
    played, learner = game(3, 2, 10, 3), FineTune(**QUICK)
    there = [[0, 1, 2, 3, 5, 6, 8], [0, 1, 2, 4, 5, 7, 9]]
    played["weight"] = torch.zeros(2, 10)
    for i, places in enumerate(there):
        played["weight"][i, places] = 1
    found = fit(learner, played).predict_proba(played["other"])
    garbage = {"x": played["x"].clone(), "y": played["y"].clone()}
    garbage["x"][played["weight"] == 0], garbage["y"][played["weight"] == 0] = 255, 0
    assert torch.equal(fit(learner, {**played, **garbage}).predict_proba(played["other"]), found)
    for i, places in enumerate(there):
        short = {**played, **{key: played[key][i : i + 1, places] for key in ("x", "y", "weight")}}
        assert torch.equal(fit(learner, short).predict_proba(played["other"])[0], found[i])


def test_every_fit_starts_from_the_pretrained_weights() -> None:
    learner, played = FineTune(**QUICK), game(4, 1, 9, 3)
    before = weights(learner._start())
    first = fit(learner, played).networks[0]
    fit(learner, game(5, 1, 9, 2))
    assert same(weights(learner._start()), before)
    assert same(weights(fit(learner, played).networks[0]), weights(first))
    assert not same(weights(first)[:4], before[:4]), "the convolutions are trained, not only the new layer"
    assert not first.training


def test_what_is_random_comes_from_the_seed_and_the_number_of_labels() -> None:
    played = game(6, 1, 9, 3)

    def start(seed: int, n: int) -> Tensor:
        short = {**played, **{key: played[key][:, :n] for key in ("x", "y", "weight")}}
        still = FineTune(**{**QUICK, "learning_rate": 1e-12, "epochs": 1, "seed": seed})
        return fit(still, short).networks[0][-1].weight

    assert torch.equal(start(0, 8), start(0, 8))
    assert not torch.allclose(start(0, 8), start(1, 8), atol=1e-3)
    assert not torch.allclose(start(0, 8), start(0, 9), atol=1e-3)


@pytest.mark.parametrize("network", ["tiny", "dropping"])
def test_no_global_generator_is_touched(network: str) -> None:
    played, learner = game(7, 1, 9, 3), FineTune(**{**QUICK, "network": f"finetune_play:{network}"})
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002 (the very thing)
        found.append(fit(learner, played).predict_proba(played["other"]))
        np.testing.assert_equal(np.random.get_state(), before[1])  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.equal(*found), "nor does it have an influence"


def test_batch_normalisation_keeps_the_means_of_a_pretraining_and_of_nothing_else() -> None:
    arguments, played = {**QUICK, "network": "finetune_play:normed", "seed": 1}, game(8, 1, 13, 3)
    for given, frozen in (({}, True), ({"weights": "random"}, False), ({"freeze_batch_norm": False}, False)):
        learner = FineTune(**{**arguments, **given})
        before, after = learner._start()[1], fit(learner, played).networks[0][1]
        assert torch.equal(after.running_mean, before.running_mean) == frozen
        assert not torch.equal(after.weight, before.weight), "its scale is trained"
    assert FineTune(**arguments, weights="random", freeze_batch_norm=True).frozen


def test_no_batch_has_one_image_alone_and_prediction_is_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_play, "ROWS", rows := [])
    learner = FineTune(**{**QUICK, "network": "finetune_play:counted", "epochs": 1, "batch_size": 3})
    for n in range(2, 20):
        rows.clear()
        played = game(9, 1, n, 2)
        model = fit(learner, played)
        assert sum(rows) == n
        assert max(rows) <= 3
        assert min(rows) >= 2
        assert max(rows) - min(rows) <= 1
    rows.clear()
    many = torch.cat([played["other"]] * 5)
    latent = model.latent(many)
    assert rows == [64, 64, 22]
    probabilities = model.predict_proba(many)
    assert rows == [64, 64, 22], "one forward pass gives both"
    rows.clear()
    few = many[60:70].clone()
    np.testing.assert_allclose(model.predict_proba(few), probabilities[:, 60:70], rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.latent(few), latent[:, 60:70], rtol=0, atol=1e-6)
    assert rows == [10]


def test_it_learns() -> None:
    played = game(10, 1, 40, 3)
    truth = FineTune(**{**QUICK, "epochs": 40, "weights": "random"})
    model = fit(truth, played)
    right = model.predict_proba(played["x"][0])[0].argmax(dim=1) == played["y"][0]
    assert right.float().mean() > 0.9


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.save(build_network("finetune_play:tiny", seed=5).state_dict(), tmp_path / "mine.pt")
    for path in (tmp_path / "mine.pt", str(tmp_path / "mine.pt")):
        learner = FineTune(**{**QUICK, "weights": path})
        assert learner.frozen
        assert same(weights(learner._start()), weights(build_network("finetune_play:tiny", seed=5)))
    assert not same(weights(FineTune(**QUICK)._start()), weights(learner._start()))
    for name, message in {"normed": "not the weights of this Sequential", "tiny": "no such file"}.items():
        path = tmp_path / ("mine.pt" if name == "normed" else "other.pt")
        with pytest.raises(CheckpointError, match=message):
            _ = FineTune(f"finetune_play:{name}", path).latent_size


def test_published_weights_are_not_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    learner = FineTune()  # making it looks for nothing yet
    assert (learner.network, learner.weights) == ("resnet50", "published")
    assert (learner.epochs, learner.learning_rate) == (200, 1e-4)
    with pytest.raises(SettingsError, match=r"published weights of resnet50 are not here: .*download"):
        _ = learner.latent_size
    with pytest.raises(SettingsError, match=r"unknown network 'resnet5'. Did you mean"):
        _ = FineTune("resnet5").latent_size


def test_of_torchvisions_any_will_do() -> None:
    played = game(11, 1, 4, 2, colours=3, side=32)
    for name, size in {"resnet18": 512, "squeezenet1_1": None, "mobilenet_v3_small": 1024}.items():
        learner = FineTune(name, "random", epochs=1)
        if size is None:
            with pytest.raises(SettingsError, match="SqueezeNet has no linear layer"):
                _ = learner.latent_size
            continue
        assert learner.latent_size == size
        model = fit(learner, played)
        assert model.latent(played["other"]).shape == (1, 30, size)
        assert torch.isfinite(model.predict_proba(played["other"])).all()


@pytest.mark.slow
def test_resnet_50_trains() -> None:
    played, learner = game(12, 1, 6, 2, side=64), FineTune(weights="random", epochs=2)
    model = fit(learner, played)
    assert model.latent(played["other"]).shape == (1, 30, 2048)
    np.testing.assert_allclose(model.predict_proba(played["other"]).sum(dim=-1), 1, rtol=0, atol=1e-5)


class Odd(nn.Module):
    """Ends otherwise than in a layer on vectors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.last = kind, nn.Conv2d(3, 4, 3), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        if self.kind == "sequence":
            return self.last(x.flatten(2).transpose(1, 2)).mean(dim=1)
        x = x.mean(dim=(2, 3))
        if self.kind == "auxiliary":
            return (self.last(x), self.last(x)) if self.training else self.last(x)
        if self.kind == "doubled":
            return torch.cat([self.last(x)] * 2, dim=1)
        return self.last(x) + self.last(2 * x)


def test_networks_that_end_otherwise() -> None:
    played = game(13, 1, 6, 2)

    def model(kind: str) -> Any:
        learner = FineTune(**{**QUICK, "network": "torch.nn:Identity"})
        learner._pretrained = Odd(kind)
        return fit(learner, played)

    assert model("auxiliary").predict_proba(played["other"]).shape == (1, 30, 2)
    with pytest.raises(SettingsError, match=r"Odd returned \(3, 4\) for 3 images of 2 classes"):
        model("doubled")
    for kind in ("sequence", "twice"):
        with pytest.raises(SettingsError, match="Odd does not put each image once, as one vector"):
            model(kind).predict_proba(played["other"])
    with pytest.raises(SettingsError, match=r"AlexNet failed on 2 images of 8 x 8 pixels \(.*Give another size"):
        fit(FineTune("alexnet", "random", epochs=1), game(13, 1, 2, 2))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"network": ""}, "network='' must be a name"),
    ({"network": 3}, "network=3 must be a name"),
    ({"weights": ""}, "weights='' must be 'published', 'random' or a file"),
    ({"weights": None}, "weights=None must be"),
    ({"epochs": 0}, "epochs=0 must be a whole number of at least 1"),
    ({"epochs": 2.0}, r"epochs=2\.0 must be a whole number"),
    ({"epochs": True}, "epochs=True must be a whole number"),
    ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
    ({"size": 0}, "size=0 must be a whole number of at least 1"),
    ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
    ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be above 0"),
    ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
    ({"learning_rate": "fast"}, "learning_rate='fast' must be above 0"),
    ({"download": 1}, "download=1 must be True or False"),
    ({"mixed_precision": None}, "mixed_precision=None must be True or False"),
    ({"freeze_batch_norm": "yes"}, "freeze_batch_norm='yes' must be True or False"),
    ({"batch_size": 2, "weights": "random"}, "batch_size=2: batch normalisation that is not frozen needs 3"),
    ({"epoch": 3}, "learner 'finetune'.*'epoch'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_learner("finetune", **arguments)


def test_it_is_made_by_name() -> None:
    assert {"finetune": FineTune} == IMAGE_LEARNERS
    learner = make_learner("finetune", size=24, epochs=3)
    assert isinstance(learner, FineTune)
    assert (learner.size, learner.epochs, learner.on_images) == (24, 3, True)
    with pytest.raises(SettingsError, match=r"unknown learner 'finetun'\. Did you mean 'finetune'"):
        make_learner("finetun")


@pytest.mark.gpu
@pytest.mark.parametrize("mixed", [True, False])
def test_on_a_gpu_it_is_the_same_every_time_and_near_the_cpu(mixed: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    played = game(14, 2, 12, 3, side=16)
    moved = {key: value.cuda() if isinstance(value, Tensor) else value for key, value in played.items()}
    learner = FineTune(**{**QUICK, "network": "finetune_play:normed", "mixed_precision": mixed})
    before = torch.cuda.get_rng_state()
    found = [fit(learner, moved).predict_proba(moved["other"]) for _ in range(2)]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(*found)
    expected = fit(learner, played).predict_proba(played["other"])
    np.testing.assert_allclose(found[0].cpu(), expected, rtol=0, atol=0.1 if mixed else 0.01)
