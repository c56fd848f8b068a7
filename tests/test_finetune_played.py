"""Who plays ``ActiveLabel-v0`` with a network that is fine-tuned, that labels help it, and the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from active_reference import play
from finetune_play import make, make_vec, quick
from pool_play import attached

from activelabel.baselines import POOL_BASELINES, make_pool_baseline
from activelabel.data import load
from activelabel.envs import ActiveLabelEngine, ActiveLabelSettings
from activelabel.envs.finetune import FineTune
from activelabel.errors import SettingsError
from activelabel.evaluation.episodes import play_episodes
from activelabel.settings import ActiveRunSettings, preset
from activelabel.train import main

# -- who plays it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POOL_BASELINES)
def test_every_strategy_plays(name: str) -> None:
    agent = make_pool_baseline(name, 3, 0)
    vector = make_vec(2, observe=agent.observes, budget=6, **quick(epochs=1))
    attached(agent, vector.unwrapped)
    observation, _ = vector.reset(seed=0)
    for _ in range(2):
        action, _ = agent.predict(observation)
        observation, _, over, _, info = vector.step(action)
    assert over.all()
    assert (info["final_info"]["n_labelled"] == 3 + 6).all()


def test_the_oracle_tries_what_would_be_trained() -> None:
    vector = make_vec(2, batch=1, budget=4)
    vector.reset(seed=0)
    tried = np.stack([np.flatnonzero(free)[[3, 7]] for free in vector.unwrapped.episodes.mask.numpy()])
    before = vector.unwrapped.episodes.observe()
    expected = vector.unwrapped.episodes.try_labels(tried)
    np.testing.assert_equal(vector.unwrapped.episodes.observe(), before)
    _, _, _, _, info = vector.step(tried[:, 1])
    np.testing.assert_array_equal(info["reward_accuracy"], expected[:, 1])


def test_a_target_is_a_share_of_what_the_whole_pool_part_gives() -> None:
    env = make(reward="target", tolerance=0.9, **quick(epochs=2))
    x, y = env.engine.x["pool"][None], env.engine.y["pool"][None]
    model = env.engine.learner.fit(x, y, torch.ones(y.shape), 3, None)
    right = model.predict_proba(env.engine.x["reward"])[0].argmax(dim=-1) == env.engine.y["reward"]
    assert env.engine.target() == pytest.approx(0.9 * right.float().mean().item())
    assert play(env)[-1][1] == -1


def rises(engine: ActiveLabelEngine, episodes: int = 2) -> np.ndarray:
    """Mean accuracy on the test set before the first and after the last label, labelled at random."""
    curves = play_episodes(engine, make_pool_baseline("random", engine.settings.batch, 0), episodes)
    return curves.accuracy.mean(axis=0)[[0, -1]]


def test_accuracy_rises_with_labels() -> None:
    arguments = {"network": "finetune_play:wider", "weights": "random", "epochs": 30, "learning_rate": 0.003}
    sizes = {"classes": ("0", "1", "2", "3"), "budget": 40, "batch": 20, "pool": 150, "state_images": 10}
    settings = ActiveLabelSettings.make(**sizes, learner="finetune", learner_arguments=arguments)
    start, end = rises(ActiveLabelEngine(load("digits"), settings, "cpu"))
    assert end > start + 0.15
    assert end > 0.8


@pytest.mark.data
def test_accuracy_rises_with_labels_on_x_rays(data_dir: Path) -> None:
    arguments = {"network": "finetune_play:wider", "weights": "random", "epochs": 30, "learning_rate": 0.003}
    sizes = {"budget": 60, "batch": 30, "pool": 200, "fractions": (0.3, 0.3, 0.4), "shares": (0.5, 0.05, 0.15, 0.3)}
    settings = ActiveLabelSettings.make(**sizes, learner="finetune", learner_arguments={**arguments, "size": 32})
    start, end = rises(ActiveLabelEngine(load(data_dir / "kermany_cxr96.npz"), settings, "cpu"))
    assert end > start + 0.15
    assert end > 0.8


# -- the command line -------------------------------------------------------------------------------------------------


def test_settings_go_to_the_learner_by_its_own_names() -> None:
    given = {"network": "resnet18", "weights": "random", "image_size": 64, "download": True}
    settings = ActiveRunSettings(learner="finetune", learner_epochs=5, learner_rate=1e-3, **given)
    assert settings.learner_arguments == {
        "network": "resnet18", "weights": "random", "size": 64, "download": True, "epochs": 5, "learning_rate": 1e-3,
    }  # fmt: skip
    assert ActiveRunSettings(learner="finetune").learner_arguments == {}
    for name, value in {**given, "learner_rate": 1e-3}.items():
        with pytest.raises(SettingsError, match=f"^{name}={value} does not go with the learner 'softmax'"):
            ActiveRunSettings(**{name: value})
    for name, value in {"learner_c": 2.0, "learner_warm": True}.items():
        with pytest.raises(SettingsError, match=f"^{name}={value} does not go with the learner 'finetune'"):
            ActiveRunSettings(learner="finetune", **{name: value})
    for name, bad in {"image_size": "big", "learner_rate": -1.0, "weights": 3}.items():
        with pytest.raises(SettingsError, match="must be"):
            ActiveRunSettings.from_mapping({"learner": "finetune", name: bad}, "config.yaml")


def test_the_papers_classifier_is_a_preset() -> None:
    """§4.1, §4.2; all else is slade2022."""
    found, frozen = (preset(name, "ddqn", "ActiveLabel-v0") for name in ("slade2022-finetune", "slade2022"))
    assert isinstance(found, ActiveRunSettings)
    learner = FineTune(**found.learner_arguments)
    assert (learner.network, learner.weights, learner.size) == ("resnet50", "published", 224)
    assert (learner.epochs, learner.learning_rate, learner.frozen) == (200, 1e-4, True)
    same = ("budget", "batch", "features", "state", "reward", "learning_rate", "hidden", "gamma", "credit", "target")
    for name in same:
        assert getattr(found, name) == getattr(frozen, name), name
    assert found.space == "latent"
    assert found.envs < frozen.envs


SMALL = "--budget 4 --batch 2 --pool 20 --state-images 4 --episodes 4 --envs 2 --val-episodes 2 --test-episodes 2"
SMALL += " --classes 0 1 --shares 0.4 0.1 0.3 0.2 --test-shares 0.5 0.1 0.2 0.2 --hidden 8 --warm-start-episodes 2"
SMALL += " --gradient-steps 2 --val-every 1 --device cpu --no-progress"


def test_the_command_line_trains_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--env", "ActiveLabel-v0", "--data", "digits", "--runs", str(tmp_path), *SMALL.split()]
    line += ["--learner", "finetune", "--network", "finetune_play:tiny", "--image-size", "12", "--learner-epochs", "1"]
    assert main([*line, "--against", "random", "k-center"]) == 0
    assert "k-center" in capsys.readouterr().out
    cases: dict[str, list[str]] = {
        "network=finetune_play:tiny does not go with the learner 'softmax'": ["--learner", "softmax"],
        "no such file of weights": ["--weights", str(tmp_path / "none.pt")],
        "unknown network": ["--network", "resnet5"],
        "has no images": ["--data", "synthetic", "--classes", "No Finding", "Edema"],
    }
    for message, more in cases.items():
        assert main([*line, *more]) == 2
        assert message in capsys.readouterr().err
