"""What oracles answer, what they cost, people among them, and settings that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_play import CONFUSION, engine_of, questions

from activelabel.data import Cohort
from activelabel.envs import ActiveLabelSettings
from activelabel.envs.asking import NO_ANSWER, Oracle, Perfect, answered, paid
from activelabel.envs.oracles import ORACLES, Annotators, Human, Noisy, make_oracle
from activelabel.errors import DataError, SettingsError
from activelabel.seeding import stream
from activelabel.settings.active import ActiveRunSettings

Make = Callable[..., Any]

# -- answers ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5), sharp=st.sampled_from([0.2, 1.0, 5.0]))
def test_confusions_are_as_frequent_as_the_matrix_says(blobs: Cohort, seed: int, classes: int, sharp: float) -> None:
    rng, n = stream(seed, "matrix"), 4000
    matrix = rng.dirichlet(np.full(classes, sharp), size=classes)
    oracle = Noisy(confusion=(matrix.tolist(), matrix.flatten().tolist())[seed % 2])
    cohort = Cohort(np.eye(classes, dtype=np.int8), tuple("ABCDE"[:classes]), np.ones((classes, 1), np.float32))
    oracle.check(cohort, cohort.classes)
    draws = torch.from_numpy(rng.random((1, n, 4)))
    for truth in range(classes):
        given_class = answered(oracle, questions(cohort, [truth] * n, classes, draws))[0]
        shares = np.bincount(given_class, minlength=classes) / n
        # Five standard deviations of the share, and one image.
        spread = 5 * np.sqrt(matrix[truth] * (1 - matrix[truth]) / n) + 1 / n
        assert (np.abs(shares - matrix[truth]) <= spread).all()
        assert (shares[matrix[truth] == 0] == 0).all()


def test_a_rate_spreads_errors_over_the_other_classes(blobs: Cohort) -> None:
    draws = torch.from_numpy(stream(0, "draws").random((1, 20_000, 4)))
    for truth in range(4):
        found = answered(Noisy(0.3), questions(blobs, [truth] * 20_000, draws=draws))[0]
        shares = np.bincount(found, minlength=4) / 20_000
        expected = np.where(np.arange(4) == truth, 0.7, 0.1)
        np.testing.assert_allclose(shares, expected, rtol=0, atol=0.015)
    always = answered(Noisy(1.0), questions(blobs, [2] * 20_000, draws=draws))
    assert set(always.unique().tolist()) == {0, 1, 3}


@pytest.mark.parametrize("oracle", [Noisy(0.0), Noisy(confusion=np.eye(4).tolist()), Annotators([0.0], abstain=[0.0])])
def test_what_never_happens_does_not_happen_at_the_smallest_draw_either(blobs: Cohort, oracle: Oracle) -> None:
    assert answered(oracle, questions(blobs, [0, 1, 2, 3])).tolist() == [[0, 1, 2, 3]]


def test_annotators_have_their_shares_costs_errors_and_silences(blobs: Cohort) -> None:
    oracle = Annotators([0.5, 0.0, 0.0], costs=[1, 2, 7], abstain=[0.0, 0.25, 1.0], shares=[0.5, 0.3, 0.2])
    asked = questions(blobs, [1] * 20_000, draws=torch.from_numpy(stream(1, "draws").random((1, 20_000, 4))))
    costs, found = oracle.costs(asked.draws)[0], answered(oracle, asked)[0]
    for cost, share, right, silent in ((1, 0.5, 0.5, 0.0), (2, 0.3, 0.75, 0.25), (7, 0.2, 0.0, 1.0)):
        mine = found[costs == cost]
        assert len(mine) / 20_000 == pytest.approx(share, abs=0.02)
        assert float((mine == 1).double().mean()) == pytest.approx(right, abs=0.03)
        assert float((mine == NO_ANSWER).double().mean()) == pytest.approx(silent, abs=0.03)


def test_indices_are_paid_one_after_the_other() -> None:
    oracle = Annotators([0.0] * 2, costs=[1, 3])
    draws = torch.zeros(5, 4, 4, dtype=torch.float64)
    draws[:, 1, 0] = 0.7  # the second is dear
    asks = torch.ones(5, 4) > 0
    asks[3, 1] = False  # where it is nobody's work it takes 1
    counted, cost = paid(oracle, draws, asks, torch.tensor([10, 4, 3, 3, 1]))
    assert counted.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
    assert cost.tolist() == [6, 4, 3, 3, 1]


# -- people -----------------------------------------------------------------------------------------------------------


def test_a_person_answers_in_the_terminal_once_an_image(blobs: Cohort) -> None:
    shown: list[str] = []
    typed = iter(["no class", " B ", "", "D", "A"])

    def ask(text: str) -> str:
        shown.append(text)
        return next(typed)

    env = gym.make("ActiveLabel-v0", engine=engine_of(blobs, oracle=Human(ask=ask), batch=3)).unwrapped
    for _ in range(2):
        _, start = env.reset(options={"episode": 0})
        free = np.flatnonzero(start["action_mask"])
        info = env.step(free[:3])[-1]
        assert info["labels"].tolist() == [1, -1, 3]
        assert len(shown) == 4  # the first was asked twice, and the second episode asks nothing
    assert shown[0].startswith(f"{start['candidate_ids'][free[0]]}: A, B, C, D")
    assert env.step(free[[3, 3, 0]])[-1]["labels"].tolist() == [0, -1, -1]
    closed = Human(ask=lambda text: (_ for _ in ()).throw(EOFError))
    with pytest.raises(SettingsError, match="image '0': the terminal is closed"):
        answered(closed, questions(blobs, [0]))


def test_a_person_answers_in_a_file(tmp_path: Path, blobs: Cohort) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("why,image,label\nx,0,C\nx,1,\nx,2,A\nx,2,A\n")
    asked = questions(blobs, [0, 0, 0])
    assert answered(make_oracle("human", file=file), asked).tolist() == [[2, -1, 0]]
    with pytest.raises(SettingsError, match=r"labels\.csv has no row of image '3'"):
        answered(Human(file), questions(blobs, [0] * 4))
    named = Cohort(blobs.labels, blobs.classes, blobs.features, names=np.array([f"i{n}.png" for n in range(700)]))
    with pytest.raises(SettingsError, match=r"no row of image 'i0\.png'"):
        answered(Human(file), questions(named, [0]))
    for text, error, message in (
        ("image,label\n0,E\n", SettingsError, "image '0': unknown class 'E'"),
        ("image,lable\n0,A\n", DataError, "Did you mean 'lable'"),
        ("image,label\n0,A\n0,B\n", DataError, "line 3: image '0' has two labels, 'A' and 'B'"),
    ):
        file.write_text(text)
        with pytest.raises(error, match=message):
            engine_of(blobs, oracle="human", oracle_arguments={"file": str(file)})


def test_a_person_answers_in_one_episode_at_a_time(make_active_vec: Make) -> None:
    with pytest.raises(SettingsError, match="Human answers in one episode or task at a time, not in 3"):
        make_active_vec(oracle="human")
    with pytest.raises(SettingsError, match="one episode at a time only"):
        ActiveRunSettings(oracle="human")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("noisi", {}, "unknown oracle 'noisi'. Did you mean 'noisy'"),
        ("noisy", {}, "needs a rate, or a confusion matrix instead"),
        ("noisy", {"rate": 0.1, "confusion": CONFUSION}, "needs a rate, or"),
        ("noisy", {"rat": 0.1}, "oracle 'noisy': .*rat"),
        ("noisy", {"rate": 1.5}, r"rate of errors: 1\.5 must be a share"),
        ("noisy", {"rate": float("nan")}, "nan must be a share"),
        ("noisy", {"rate": "0.1"}, "'0.1' must be a share"),
        ("noisy", {"confusion": [[0.5, 0.5]]}, r"shape \(1, 2\) must be square"),
        ("noisy", {"confusion": [[1.0]]}, "must be square"),
        ("noisy", {"confusion": [[0.5, 0.5], [1.0]]}, "as many in each row"),
        ("noisy", {"confusion": [[0.5, 0.4], [0, 1]]}, r"row 0, \[0\.5, 0\.4\], must be probabilities"),
        ("noisy", {"confusion": [[1, 0], [-0.5, 1.5]]}, "row 1.*must be probabilities"),
        ("noisy", {"confusion": [[1, 0], [float("nan"), 1]]}, "row 1.*must be probabilities"),
        ("noisy", {"confusion": np.eye(3)}, "of 3 classes does not go with 4: A, B, C, D"),
        ("abstaining", {"rate": -0.1}, "abstain: -0.1 must be a share"),
        ("annotators", {"errors": []}, r"errors=\[\] must be a list"),
        ("annotators", {"errors": 0.5}, "errors=0.5 must be a list"),
        ("annotators", {"errors": [0.1, 0.2], "costs": [1]}, r"costs=\[1\] must be a list of 2, one an annotator"),
        ("annotators", {"errors": [0.1], "costs": [0]}, "costs: 0 must be a whole number of at least 1"),
        ("annotators", {"errors": [0.1], "costs": [1.5]}, "costs: 1.5 must be a whole number"),
        ("annotators", {"errors": [0.1, 0.2], "shares": [0.5, 0.6]}, r"shares=\[0\.5, 0\.6\] must sum to 1"),
        (Perfect(), {"rate": 0.1}, "go with a name, not with an object"),
        (3, {}, "oracle=3 has no draws, check, costs, answers"),
    ],
)
def test_impossible_oracles_are_refused(blobs: Cohort, name: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        engine_of(blobs, oracle=name, oracle_arguments=arguments)
    with pytest.raises(SettingsError, match="oracle_arguments=3 must be names and values"):
        ActiveLabelSettings.make(oracle_arguments=3)


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("answers", torch.full((1, 5), 4), r"answers must be int64 \(1, 5\) from -1 to 3"),
        ("answers", torch.full((1, 5), -2), "answers must be"),
        ("answers", torch.zeros(1, 4, dtype=torch.int64), "answers must be"),
        ("answers", [0] * 5, "answers must be"),
        ("costs", torch.zeros(1, 5, dtype=torch.int64), r"costs must be int64 \(1, 5\) of at least 1"),
        ("costs", torch.ones(1, 5), "costs must be"),
    ],
)
def test_what_an_oracle_returns_is_checked(make_active: Make, method: str, value: Any, message: str) -> None:
    oracle = type("Odd", (Perfect,), {method: lambda self, given: value})()
    env = make_active(oracle=oracle)
    env.reset(seed=0)
    with pytest.raises(SettingsError, match=f"oracle Odd: {message}"):
        env.step(np.arange(5))


# -- settings ---------------------------------------------------------------------------------------------------------


def test_siblings_keep_the_oracle_or_get_another(blobs: Cohort) -> None:
    engine = engine_of(blobs, oracle="noisy", oracle_arguments={"rate": 0.4})
    assert engine.sibling(pool=30).oracle is engine.oracle
    other = engine.sibling(oracle="abstaining").oracle
    assert type(other) is ORACLES["abstaining"]
    oracle: Oracle = Noisy(0.2)
    assert make_oracle(oracle) is oracle


def test_the_settings_of_a_run_name_an_oracle() -> None:
    assert ActiveRunSettings().env_arguments()["oracle"] == "perfect"
    assert ActiveRunSettings().oracle_arguments == {}
    flat = tuple(float(p) for row in CONFUSION for p in row)
    several = {"errors": (0.1, 0.2), "costs": (1, 2), "abstain": (0, 0.1), "shares": (0.5, 0.5)}
    for oracle, given_settings, expected in (
        ("noisy", {"oracle_rate": 0.0}, {"rate": 0.0}),
        ("noisy", {"oracle_confusion": flat}, {"confusion": flat}),
        ("abstaining", {"oracle_rate": 0.2}, {"rate": 0.2}),
        (
            "annotators",
            {f"oracle_{name}": value for name, value in several.items()},
            several,
        ),
    ):
        s = ActiveRunSettings(oracle=oracle, **given_settings)  # type: ignore[arg-type]
        arguments = s.env_arguments()
        assert (arguments["oracle"], arguments["oracle_arguments"]) == (oracle, expected)
        assert ActiveLabelSettings.make(**arguments).oracle_arguments == expected
    for bad, message in (
        ({"oracle_rate": 0.1}, "oracle_rate=0.1 does not go with the oracle 'perfect'"),
        ({"oracle": "noisy", "oracle_errors": (0.1,)}, "oracle_errors=.* does not go with the oracle 'noisy'"),
        ({"oracle": "noisy"}, "needs a rate"),
        ({"oracle": "nosy", "oracle_rate": 0.1}, "unknown oracle of a run 'nosy'. Did you mean 'noisy'"),
    ):
        with pytest.raises(SettingsError, match=message):
            ActiveRunSettings(**bad)  # type: ignore[arg-type]
