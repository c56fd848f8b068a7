"""What a pretraining looks at: its images as squares, and the vote of neighbours that it is watched by."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrain_play import TINY, cohort, pixels, train

from activelabel.data.knn import knn_accuracy, watched_rows
from activelabel.data.pretrain import load_encoder
from activelabel.data.squares import Squares, all_grey
from activelabel.errors import DataError
from activelabel.seeding import stream

# -- watching ---------------------------------------------------------------------------------------------------------


def slow_vote(voters: Any, classes: Any, image: Any, k: int) -> int:
    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))

    nearest = sorted(range(len(voters)), key=lambda i: -cosine(image, voters[i]))[:k]
    votes: dict[int, float] = {}
    for i in nearest:
        votes[int(classes[i])] = votes.get(int(classes[i]), 0.0) + math.exp(cosine(image, voters[i]) / 0.07)
    return max(votes, key=lambda c: votes[c])


@pytest.mark.parametrize("k", [1, 5, 100])
def test_neighbours_vote_as_in_the_slow_reference(k: int) -> None:
    rng = stream(0, "vote")
    voters, judged = rng.standard_normal((30, 4)), rng.standard_normal((20, 4))
    classes, truth = rng.integers(0, 3, 30), rng.integers(0, 3, 20)
    expected = np.mean([slow_vote(voters, classes, image, k) == c for image, c in zip(judged, truth, strict=True)])
    tensors = (torch.from_numpy(a) for a in (voters, classes, judged, truth))
    assert knn_accuracy(*tensors, k) == pytest.approx(expected)


def test_validation_images_are_judged_and_training_images_vote() -> None:
    data = cohort()
    found = watched_rows(data, np.arange(0, 40, 2), 12, 0)
    assert found is not None
    assert len(found.voters) == 12
    assert set(found.voters) <= set(range(0, 40, 2))
    assert found.judged.tolist() == list(range(1, 40, 4))
    assert found.judged_classes.tolist() == data.labels.argmax(1)[1::4].tolist()


def test_without_validation_images_patients_are_on_one_side() -> None:
    patient = np.arange(200) // 4
    found = watched_rows(cohort(pixels(200), patient=patient), np.arange(200), 1000, 0)
    assert found is not None
    assert len(found.voters) + len(found.judged) == 200
    assert 10 <= len(found.judged) <= 30
    assert not set(patient[found.voters]) & set(patient[found.judged])


def test_images_of_several_classes_or_none_do_not_take_part() -> None:
    labels = np.eye(2, dtype=np.int8)[np.arange(40) // 2 % 2]
    labels[0], labels[1], labels[2], labels[5] = [1, 1], [0, 0], [-1, 1], [1, -1]
    found = watched_rows(cohort(labels=labels), np.arange(0, 40, 2), 100, 0)
    assert found is not None
    assert not {0, 1, 2, 5} & {*found.voters.tolist(), *found.judged.tolist()}
    assert len(found.voters) == 18
    assert len(found.judged) == 8
    labels[:] = [0, 1]
    assert watched_rows(cohort(labels=labels), np.arange(0, 40, 2), 100, 0) is None


# -- images -----------------------------------------------------------------------------------------------------------


def test_batches_in_memory_and_on_demand_are_the_same() -> None:
    images: list[Any] = [*pixels(5), *pixels(6, 11)]
    images[3] = np.stack([images[3], images[3], 255 - images[3]], axis=2)
    rows = np.array([0, 2, 3, 5, 9, 10])
    both = [Squares(images, rows, 8, grey=True, memory=memory, workers=2) for memory in (0.0, 1.0)]
    assert [s.in_memory for s in both] == [False, True]
    for positions, size in (([4, 0, 2, 5, 1], 2), ([3], 4), ([], 2), ([0, 1, 2, 3], 1)):
        first, second = (list(s.batches(np.array(positions, dtype=np.int64), size)) for s in both)
        assert [len(batch) for batch in first] == [len(positions[i : i + size]) for i in range(0, len(positions), size)]
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    coloured = images[3].astype(float).mean(axis=2).round()
    np.testing.assert_array_equal(next(both[0].batches(np.array([2]), 1))[0, 0], coloured)
    for s in both:
        s.close()


def test_colours_are_kept_where_there_are_some(tmp_path: Path) -> None:
    images = stream(0, "colours").integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    images[..., 2] //= 2
    assert not all_grey(images, np.arange(40))
    assert all_grey(np.repeat(pixels()[..., None], 3, axis=3), np.arange(40))
    train(tmp_path, replace(TINY, epochs=1), cohort(images))
    _, facts = load_encoder(tmp_path, TINY.network)
    assert not facts["grey"]
    assert facts["mean"] == pytest.approx(images[::2].mean(axis=(0, 1, 2)) / 255)


def test_a_cohort_that_cannot_be_pretrained_on_is_refused(tmp_path: Path) -> None:
    features = np.ones((40, 3), np.float32)
    for data, said in (
        (replace(cohort(), images=None, features=features), "no images"),
        (cohort(split=np.array(["test"] * 40)), "no training images"),
        (cohort(np.zeros((40, 8, 8, 2), np.uint8)), "expected uint8"),
    ):
        with pytest.raises(DataError, match=said):
            train(tmp_path, data=data)
