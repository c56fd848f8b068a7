"""Contrastive pretraining: it goes on bit for bit, looks at no label and at no test image, and is watched honestly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import tyro
from pretrain_play import RESNET, TINY, cohort, content, pixels, state, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from activelabel.data import Cohort, pretraining
from activelabel.data.augment import Augmentation
from activelabel.data.pretrain import (
    PRETRAIN_PRESETS,
    Pretrain,
    PretrainSettings,
    command_default,
    load_encoder,
    pretrain_preset,
    read_settings,
)
from activelabel.data.pretraining import Pretraining
from activelabel.errors import SettingsError
from activelabel.seeding import stream


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training."""
    out = tmp_path_factory.mktemp("whole")
    train(out)
    return out


# -- what it leaves ---------------------------------------------------------------------------------------------------


def test_the_encoder_is_the_query_network_without_its_head(tmp_path: Path) -> None:
    encoder, facts = load_encoder(train(tmp_path, RESNET, minutes=1e-9))
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    saved = {n.removeprefix("encoder."): v for n, v in content(tmp_path)["model"].items() if n.startswith("encoder.")}
    assert reference.digest(dict(encoder.state_dict())) == reference.digest(saved)
    assert encoder(torch.zeros(2, 3, 8, 8)).shape == (2, facts["dim"]) == (2, 16)
    seen = pixels()[np.arange(40) % 2 == 0] / 255
    assert facts["mean"] == pytest.approx((seen.mean(),) * 3)
    assert facts["std"] == pytest.approx((seen.std(),) * 3)
    expected = {
        "network": "resnet18",
        "stem": "small",
        "width": 2,
        "size": 8,
        "grey": True,
        "epochs": 1,
        "source": "tiny",
    }
    assert {name: facts[name] for name in expected} == expected
    assert PretrainSettings.from_dict(facts["settings"], "") == RESNET
    assert reference.digest(dict(load_encoder(tmp_path)[0].state_dict())) == reference.digest(saved), "by its folder"


def test_tensorboard_has_every_epoch(whole: Path) -> None:
    events = EventAccumulator(str(whole))
    events.Reload()
    shown = {
        tag: events.Scalars(f"pretrain/{tag}") for tag in ("loss", "knn_accuracy", "learning_rate", "images_per_second")
    }
    for values in shown.values():
        assert [event.step for event in values] == [1, 2, 3, 4]
        assert all(math.isfinite(event.value) for event in values)
    rates = [0.03 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [event.value for event in shown["learning_rate"]] == pytest.approx(rates, rel=1e-5)
    assert all(0 <= event.value <= 1 for event in shown["knn_accuracy"])


def test_the_loss_falls(tmp_path: Path) -> None:
    smooth = np.kron(pixels(64, 2), np.ones((4, 4), np.uint8))
    views = Augmentation(rotation=5, flip=0)
    settings = replace(TINY, epochs=20, dim=16, learning_rate=0.1, augmentation=views, checkpoint_every=20)
    loss = []
    for rate in (1e-6, 0.1):
        train(tmp_path / str(rate), replace(settings, learning_rate=rate), cohort(smooth))
        events = EventAccumulator(str(tmp_path / str(rate)))
        events.Reload()
        loss.append(events.Scalars("pretrain/loss")[-1].value)
    assert loss[1] < loss[0] - 0.3, "training is better than none"


# -- going on ---------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for the end of a process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Let a training die before it has seen so many batches."""
    seen = 0

    def dying(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2 * batch:
            raise Killed
        return original(*arguments)

    original = pretraining.augment
    monkeypatch.setattr(pretraining, "augment", dying)


@pytest.mark.parametrize("settings", [TINY, RESNET, replace(TINY, symmetric=True, cosine=False, memory=0.0)])
def test_a_killed_training_goes_on_to_the_same_weights(
    settings: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", settings)
    with monkeypatch.context() as patched:
        kill_at(patched, 6)  # two batches an epoch: in the middle of the third
        with pytest.raises(Killed):
            train(tmp_path / "cut", settings)
    assert content(tmp_path / "cut")["epochs"] == 2
    train(tmp_path / "cut", settings, resume=True)
    assert state(tmp_path / "cut") == state(tmp_path / "whole")


def test_time_that_is_over_ends_a_training_after_an_epoch(whole: Path, tmp_path: Path) -> None:
    for epochs in (1, 2, 3, 4):
        train(tmp_path, minutes=1e-9, resume=epochs > 1)
        assert content(tmp_path)["epochs"] == epochs
        assert load_encoder(tmp_path, TINY.network)[1]["epochs"] == epochs
    assert state(tmp_path) == state(whole), "the learning rate fell as planned"


def test_an_epoch_that_would_not_end_in_time_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    original = Pretraining._epoch

    def slow(self: Pretraining, bar: Any) -> dict[str, float]:
        clock[0] += 20
        return original(self, bar)

    monkeypatch.setattr(Pretraining, "_epoch", slow)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    train(tmp_path, minutes=0.9)
    assert content(tmp_path)["epochs"] == 2


def test_images_in_memory_and_on_demand_give_the_same_weights(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, replace(TINY, memory=0.0, workers=3))
    assert state(tmp_path) == state(whole)


def test_saving_and_watching_change_no_weight(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, replace(TINY, checkpoint_every=3, knn_every=9, knn_images=0))
    assert state(tmp_path) == state(whole)


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        (replace(TINY, learning_rate=0.1), None, r"made with learning_rate=0\.03 \(not 0\.1\)"),
        (replace(TINY, augmentation=Augmentation(flip=0.0)), None, "made with augmentation="),
        (replace(TINY, epochs=9, queue=8), None, "epochs=4.*queue=16|queue=16.*epochs=4"),
        (TINY, cohort(255 - pixels()), "made from mean"),
        (TINY, cohort(split=None), "made from images 20, not 40"),
    ],
)
def test_other_settings_or_images_cannot_go_on(
    whole: Path, settings: PretrainSettings, data: Cohort | None, said: str
) -> None:
    before = state(whole)
    with pytest.raises(SettingsError, match=said):
        train(whole, settings, data, resume=True)
    assert state(whole) == before


# -- honesty ----------------------------------------------------------------------------------------------------------


class Noted(Sequence[Any]):
    """Images that remember which of them were looked at."""

    def __init__(self, images: Any) -> None:
        self.images, self.seen = images, set[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        self.seen.add(int(index))
        return self.images[index]


def test_no_test_image_is_looked_at(tmp_path: Path) -> None:
    data = cohort(Noted(pixels()))
    train(tmp_path, data=data)
    assert isinstance(data.images, Noted)
    assert data.split is not None
    assert {str(data.split[row]) for row in data.images.seen} == {"train", "val"}


def test_without_watching_validation_images_are_not_looked_at_either(tmp_path: Path) -> None:
    data = cohort(Noted(pixels()))
    train(tmp_path, replace(TINY, knn_images=0), data)
    assert isinstance(data.images, Noted)
    assert data.images.seen == set(range(0, 40, 2))


def test_no_weight_depends_on_a_label(whole: Path, tmp_path: Path) -> None:
    labels = stream(1, "other labels").integers(-1, 2, (40, 2)).astype(np.int8)
    train(tmp_path, data=cohort(labels=labels))
    assert state(tmp_path) == state(whole)


@pytest.mark.parametrize("settings", [TINY, RESNET])
def test_no_global_generator_is_used(tmp_path: Path, settings: PretrainSettings) -> None:
    with reference.global_rng_untouched():
        train(tmp_path, settings)


def test_threads_are_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(tmp_path, replace(TINY, threads=before + 1, epochs=1))
    assert torch.get_num_threads() == before


# -- settings and the command -----------------------------------------------------------------------------------------


def test_the_queue_fits_the_images() -> None:
    assert PretrainSettings().queue_for(10**6) == 65536
    assert PretrainSettings().queue_for(5000) == 2304
    assert PretrainSettings().queue_for(300) == 256
    assert PretrainSettings(symmetric=True).queue_for(5000) == 2048
    assert PretrainSettings(queue=4608).queue_for(4700) == 4608
    for settings, images, said in (
        (PretrainSettings(queue=5120), 4700, "at most the 4700"),
        (PretrainSettings(queue=300), 4700, "queue=300 must be a multiple of the 256"),
        (PretrainSettings(queue=768, symmetric=True), 4700, "multiple of the 512"),
        (PretrainSettings(), 200, "batch_size=256, but there are 200"),
    ):
        with pytest.raises(SettingsError, match=said):
            settings.queue_for(images)


@pytest.mark.parametrize(
    "given",
    [
        *(
            {name: 0}
            for name in ("width", "size", "dim", "epochs", "checkpoint_every", "knn_k", "knn_every", "workers")
        ),
        *({name: -1} for name in ("seed", "knn_images", "memory", "weight_decay")),
        *({name: 1.0} for name in ("momentum", "sgd_momentum")),
        *({name: value} for name in ("temperature", "learning_rate") for value in (0.0, float("nan"), float("inf"))),
        {"threads": 0},
        {"bn_splits": 3},
        {"stem": "big"},
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        PretrainSettings(**given)


def test_a_loss_that_is_no_number_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="loss became nan in epoch"):
        train(tmp_path, replace(TINY, learning_rate=1e30, cosine=False))


@pytest.mark.parametrize("name", sorted(PRETRAIN_PRESETS))
def test_presets_survive_a_file_and_the_command_line(name: str) -> None:
    settings = pretrain_preset(name)
    assert PretrainSettings.from_dict(settings.to_dict(), "") == settings
    arguments = ["kermany", "--out", "here", "--preset", name]
    found = tyro.cli(Pretrain, args=arguments, default=command_default(arguments))
    assert (found.settings, found.source, found.out) == (settings, "kermany", Path("here"))
    more = [*arguments, "--width", "64", "--augmentation.crop", "0.5", "0.9", "--queue", "512"]
    changed = tyro.cli(Pretrain, args=more, default=command_default(more)).settings
    assert changed == replace(
        settings, width=64, queue=512, augmentation=replace(settings.augmentation, crop=(0.5, 0.9))
    )


def test_an_unknown_preset_has_the_closest_match() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'moco-cxr'"):
        command_default(["x", "--preset", "moco-crx"])


def test_the_command_trains_and_goes_on_with_its_own_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Path
) -> None:
    def make(**given: Any) -> Pretrain:
        return Pretrain("unused", tmp_path, progress=False, device="cpu", **given)

    make(settings=TINY, minutes=1e-9).run(cohort())
    assert "encoder.pt: 1 of 4 epochs, 36 features" in capsys.readouterr().out
    assert read_settings(tmp_path) == TINY
    with pytest.raises(SettingsError, match="epochs=4"):
        make(settings=replace(TINY, epochs=5), resume=True).run(cohort())
    make(resume=True).run(cohort())
    assert "4 of 4 epochs" in capsys.readouterr().out
    assert state(tmp_path) == state(whole)
