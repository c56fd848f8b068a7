"""The classifiers inside ``ActiveLabel-v0``: alone, in batches, against scikit-learn, and brought by a user."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from active_reference import gradient_descent
from active_reference import softmax as slow_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression as Scikit
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC
from torch import Tensor

from activelabel.envs import LEARNERS, SklearnLearner
from activelabel.envs.descent import Exponentials, LinearModel, shared_product, softmax
from activelabel.envs.learners import LogisticRegression, SoftmaxHead, make_learner
from activelabel.errors import SettingsError

Make = Callable[..., Any]


def game(seed: int, b: int, images: int, classes: int, d: int, n: int = 25) -> dict[str, Any]:
    """Labelled images of overlapping classes, all of them there, of unit mean squared norm; and others to predict."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d))
    y = rng.integers(classes, size=(b, images))
    y[:, :classes] = np.arange(classes)
    x = centres[y] + rng.standard_normal((b, images, d))
    other = centres[rng.integers(classes, size=n)] + rng.standard_normal((n, d))
    size = np.sqrt((x**2).sum(axis=-1).mean())
    return {
        "x": torch.from_numpy((x / size).astype(np.float32)),
        "y": torch.from_numpy(y),
        "weight": torch.ones(b, images),
        "n_classes": classes,
        "other": torch.from_numpy((other / size).astype(np.float32)),
    }


def fit(learner: Any, played: dict[str, Any], previous: Tensor | None = None) -> Any:
    return learner.fit(played["x"], played["y"], played["weight"], played["n_classes"], previous)


def probabilities(learner: Any, played: dict[str, Any], previous: Tensor | None = None) -> Any:
    return fit(learner, played, previous).predict_proba(played["other"]).numpy()


ALL: dict[str, Callable[[], Any]] = {
    **{name: make for name, make in LEARNERS.items()},  # noqa: C416 (another type)
    "warm": lambda: SoftmaxHead(epochs=20, warm=True),
    "naive Bayes": lambda: SklearnLearner(GaussianNB(var_smoothing=0.1)),
}
"""What satisfies the protocol; a newly registered learner is tested with its defaults."""


# -- against scikit-learn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.01, 0.3, 1.0])
@pytest.mark.parametrize(("classes", "images", "d"), [(2, 12, 5), (2, 40, 30), (4, 30, 5), (7, 50, 40)])
def test_logistic_regression_is_that_of_scikit_learn(classes: int, images: int, d: int, c: float) -> None:
    played = game(1, 2, images, classes, d)
    found = probabilities(LogisticRegression(c, max_iter=3000, tolerance=1e-9), played)
    for i in range(2):
        # Its c is for features of unit variance each.
        features = played["x"][i].double().numpy() * np.sqrt(d)
        model = Scikit(C=c, tol=1e-9, max_iter=10_000).fit(features, played["y"][i])
        expected = model.predict_proba(played["other"].double().numpy() * np.sqrt(d))
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=3e-4)


def test_the_default_of_logistic_regression_converges_enough() -> None:
    played = game(2, 1, 60, 5, 30)
    root = np.sqrt(30)
    model = Scikit(tol=1e-9, max_iter=10_000).fit(played["x"][0].double().numpy() * root, played["y"][0])
    expected = model.predict_proba(played["other"].double().numpy() * root)
    np.testing.assert_allclose(probabilities(LogisticRegression(), played)[0], expected, rtol=0, atol=5e-3)


def test_logistic_regression_ends_where_it_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    compute = Exponentials.compute
    monkeypatch.setattr(Exponentials, "compute", lambda self: (steps.append(len(self.values)), compute(self))[1])
    played = game(9, 4, 20, 3, 5)
    played["x"] *= torch.tensor([0.3, 1, 2, 4])[:, None, None]
    loose, tight = (LogisticRegression(0.1, 3000, tolerance) for tolerance in (1e-3, 1e-9))
    models = [fit(loose, played), fit(tight, played)]
    assert len(steps) < 3000 + 500, "one must have ended early"
    off = (models[0].predict_proba(played["other"]) - models[1].predict_proba(played["other"])).abs().max()
    assert 0 < off < 0.02
    # Each ends by itself, and those that go on longer do not move it.
    alone = [len(steps)]
    for i in range(4):
        one = {**played, **{key: played[key][i : i + 1] for key in ("x", "y", "weight")}}
        np.testing.assert_array_equal(fit(loose, one).weight[0], models[0].weight[i])
        alone.append(len(steps))
    assert len(set(np.diff(alone).tolist())) > 1, "after different numbers of steps"


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("c", [3.0, 30.0])
def test_the_softmax_head_approaches_the_solution_of_scikit_learn(classes: int, c: float) -> None:
    played = game(3, 1, 40, classes, 8)
    # Two weight vectors share the penalty of scikit-learn's one.
    model = Scikit(C=2 * c if classes == 2 else c, tol=1e-9, max_iter=10_000)
    expected = model.fit(played["x"][0].double().numpy(), played["y"][0]).predict_proba(
        played["other"].double().numpy()
    )
    off = [float(np.abs(probabilities(SoftmaxHead(c, epochs), played)[0] - expected).max()) for epochs in (3, 30, 3000)]
    assert off[0] > off[1] > off[2]
    assert off[2] < 1e-3


@pytest.mark.parametrize("learner", [SoftmaxHead(epochs=50), LogisticRegression(max_iter=50), SoftmaxHead(0.5, 7)])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_descent_on_inner_products_equals_that_on_weights(learner: Any, classes: int) -> None:
    played = game(4, 3, 20, classes, 6)
    model = fit(learner, played)
    c = learner.c if isinstance(learner, SoftmaxHead) else learner.c * 6 / (2 if classes == 2 else 1)
    for i in range(3):
        epochs = learner.epochs if isinstance(learner, SoftmaxHead) else learner.max_iter
        w, b = gradient_descent(played["x"][i].double().numpy(), played["y"][i].tolist(), classes, c, epochs)
        np.testing.assert_allclose(model.weight[i], w, rtol=0, atol=1e-4)
        np.testing.assert_allclose(model.bias[i], b, rtol=0, atol=1e-4)
        expected = slow_softmax(played["other"].double().numpy() @ w.T + b)
        np.testing.assert_allclose(model.predict_proba(played["other"])[i], expected, rtol=0, atol=1e-5)


# -- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_probabilities_are_probabilities_of_images_that_are_shared_or_not(name: str) -> None:
    played = game(5, 3, 12, 3, 4)
    model = fit(ALL[name](), played)
    shared = model.predict_proba(played["other"])
    assert (shared.shape, shared.dtype) == ((3, 25, 3), torch.float32)
    assert (shared >= 0).all()
    np.testing.assert_allclose(shared.sum(dim=-1), 1, rtol=0, atol=1e-5)
    own = torch.stack([played["other"][i : i + 20] for i in range(3)])
    for i in range(3):
        np.testing.assert_allclose(model.predict_proba(own)[i], shared[i, i : i + 20], rtol=0, atol=1e-6)
    # It has learned something.
    assert (model.predict_proba(played["x"]).argmax(dim=-1) == played["y"]).float().mean() > 0.6


QUICK: dict[str, Callable[[], Any]] = {
    **ALL,
    "softmax": lambda: SoftmaxHead(epochs=20),
    "logistic": lambda: LogisticRegression(max_iter=200, tolerance=1e-3),
}
"""In less time; and where episodes of a batch converge, they do after unequally many steps."""


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000), b=st.integers(2, 9), images=st.integers(5, 40), classes=st.integers(2, 5),
    d=st.integers(1, 40),
)  # fmt: skip
def test_a_batch_equals_one_by_one_to_the_last_bit(
    name: str, seed: int, b: int, images: int, classes: int, d: int
) -> None:
    played = game(seed, b, images, classes, d)
    learner = QUICK[name]()
    previous = None
    if getattr(learner, "warm", False):
        warm = fit(learner, played).warm
        previous = warm + torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, warm.shape).astype(np.float32))
    own = torch.stack([played["other"]] * b)
    model = fit(learner, played, previous)
    together = (model.predict_proba(played["other"]), model.predict_proba(own))
    for i in range(b):
        one = {**played, **{key: played[key][i : i + 1] for key in ("x", "y", "weight")}}
        alone = fit(learner, one, None if previous is None else previous[i : i + 1])
        for found, x in zip(together, (played["other"], own[:1]), strict=True):
            assert torch.equal(alone.predict_proba(x)[0], found[i])


@pytest.mark.parametrize("name", ALL)
def test_a_place_of_weight_0_has_no_effect_whatever_it_holds(name: str) -> None:
    played = game(6, 2, 10, 3, 4)
    weight = played["weight"].clone()
    weight[0, [4, 7]], weight[1, 9] = 0, 0
    filled = {**played, "weight": weight}
    expected = probabilities(ALL[name](), filled)
    garbage = {"x": played["x"].clone(), "y": played["y"].clone()}
    garbage["x"][weight == 0], garbage["y"][weight == 0] = 1e3, 0
    np.testing.assert_array_equal(probabilities(ALL[name](), {**filled, **garbage}), expected)
    # As if the places were not there, but for the last bits of longer sums.
    for i in range(2):
        there = weight[i] > 0
        short = {**played, **{key: played[key][i : i + 1, there] for key in ("x", "y", "weight")}}
        np.testing.assert_allclose(probabilities(ALL[name](), short)[0], expected[i], rtol=0, atol=1e-5)


def test_a_warm_start_goes_on_and_a_cold_one_does_not() -> None:
    played = game(7, 2, 15, 3, 5)
    # Half of the labels now, the others later.
    early = {**played, **{key: played[key][:, :8] for key in ("x", "y", "weight")}}
    warm, cold = SoftmaxHead(epochs=4, warm=True), SoftmaxHead(epochs=4)
    first = fit(warm, early)
    assert first.warm.shape == (2, 3, 8 + 1)
    np.testing.assert_array_equal(first.predict_proba(played["other"]), probabilities(cold, early))
    padded = torch.zeros(2, 3, 15 + 1)
    padded[:, :, :8], padded[:, :, -1] = first.warm[:, :, :-1], first.warm[:, :, -1]
    on = probabilities(warm, played, padded)
    assert np.abs(on - probabilities(warm, played)).max() > 1e-3
    for i in range(2):
        start = gradient_descent(early["x"][i].double().numpy(), early["y"][i].tolist(), 3, 30.0, 4)
        w, b = gradient_descent(played["x"][i].double().numpy(), played["y"][i].tolist(), 3, 30.0, 4, start)
        expected = slow_softmax(played["other"].double().numpy() @ w.T + b)
        np.testing.assert_allclose(on[i], expected, rtol=0, atol=1e-5)
    # One that is not warm looks at no previous model.
    np.testing.assert_array_equal(probabilities(cold, played, padded), probabilities(cold, played))
    # Both end at the same optimum.
    far = [probabilities(SoftmaxHead(1.0, 3000, warm=w), played, padded) for w in (True, False)]
    np.testing.assert_allclose(far[0], far[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("learner", [SoftmaxHead(), LogisticRegression()])
def test_duplicates_zeros_and_far_images_do_no_harm(learner: Any) -> None:
    x = torch.zeros(1, 6, 3)
    x[0, 2:4], x[0, 4:] = 1, torch.tensor([1e3, -1e3, 0])
    y = torch.tensor([[0, 1, 0, 0, 1, 1]])
    p = learner.fit(x, y, torch.ones(1, 6), 2, None).predict_proba(x[0])
    assert torch.isfinite(p).all()
    np.testing.assert_allclose(p.sum(dim=-1), 1, rtol=0, atol=1e-6)


# -- the pieces that make a batch equal one by one --------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 200), start=st.integers(0, 199), n=st.integers(1, 300),
    d=st.integers(1, 130),
)  # fmt: skip
def test_a_product_has_the_same_bits_wherever_its_rows_stand(seed: int, rows: int, start: int, n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, x = torch.randn(rows, d, generator=generator), torch.randn(n, d, generator=generator)
    whole = shared_product(a, x)
    np.testing.assert_allclose(whole, a.double() @ x.double().T, rtol=0, atol=1e-4)
    start = min(start, rows - 1)
    assert torch.equal(shared_product(a[start:], x), whole[start:])
    assert torch.equal(shared_product(a[start : start + 1], x)[0], whole[start])


@given(seed=st.integers(0, 1000), b=st.integers(1, 40), classes=st.integers(2, 12), n=st.integers(1, 300))
def test_a_softmax_has_the_same_bits_in_any_batch(seed: int, b: int, classes: int, n: int) -> None:
    logits = 5 * torch.randn(b, classes, n, generator=torch.Generator().manual_seed(seed))
    kept = logits.clone()
    found = softmax(logits)
    np.testing.assert_allclose(found, logits.double().softmax(dim=1), rtol=0, atol=1e-6)
    assert torch.equal(logits, kept)
    for i in range(0, b, 7):
        assert torch.equal(softmax(logits[i : i + 1])[0], found[i])
    exponentials = Exponentials(logits)
    for _ in range(2):  # used again and again in the descent
        exponentials.values.copy_(logits)
        total = exponentials.compute()
        assert torch.equal(exponentials.values / total, found)


def test_a_softmax_of_more_than_a_block_has_the_same_bits() -> None:
    logits = torch.randn(7, 5, 4001, generator=torch.Generator().manual_seed(0))
    found = softmax(logits)
    for i in range(7):
        assert torch.equal(softmax(logits[i : i + 1])[0], found[i])


# -- a learner of the user --------------------------------------------------------------------------------------------


class NearestCentre:
    """What a user might write: the closer the centre of a class, the likelier the class."""

    def fit(self, x: Tensor, y: Tensor, weight: Tensor, n_classes: int, previous: Tensor | None) -> Any:
        assert previous is None
        member = torch.nn.functional.one_hot(y, n_classes) * weight[:, :, None]
        self.centres = (member.transpose(1, 2) @ x) / member.sum(dim=1)[:, :, None]
        self.fitted = x.shape
        return self

    def predict_proba(self, x: Tensor) -> Tensor:
        each = x if x.ndim == 3 else x.expand(len(self.centres), *x.shape)
        distances = (each[:, :, None] - self.centres[:, None]).norm(dim=-1)
        return (-distances).softmax(dim=-1).double()


def test_a_hand_written_learner_plays(make_active: Make, make_active_vec: Make) -> None:
    learner = NearestCentre()
    env = make_active(learner=learner, observe=["probabilities"], learner_arguments={})
    observation, info = env.reset(options={"episode": 4})
    rows = info["initial_ids"]
    latent = env.engine.space.latent(np.arange(len(env.engine.cohort)))
    centres = latent[rows]  # one image of each class, class by class
    d = np.linalg.norm(latent[info["candidate_ids"]][:, None] - centres[None], axis=-1)
    np.testing.assert_allclose(observation["probabilities"], slow_softmax(-d), rtol=0, atol=1e-5)
    assert observation["probabilities"].dtype == np.float32
    assert env.observation_space.contains(observation)
    env.step(np.arange(5))
    assert learner.fitted == (1, 4 + 5, 6)
    vector = make_active_vec(3, learner=learner, learner_arguments={})
    vector.reset(seed=0)
    assert learner.fitted == (3, 4, 6)


@pytest.mark.parametrize("estimator", [GaussianNB(var_smoothing=0.1), Scikit(max_iter=500)])
def test_any_scikit_learn_classifier_plays(make_active: Make, estimator: Any) -> None:
    env = make_active(learner=SklearnLearner(estimator), observe=["probabilities"], learner_arguments={})
    observation, info = env.reset(options={"episode": 2})
    rows, classes = info["initial_ids"].tolist(), [0, 1, 2, 3]
    over = False
    while not over:
        model = type(estimator)(**estimator.get_params()).fit(env.engine.space.latent(np.array(rows)), classes)
        expected = model.predict_proba(env.engine.space.latent(info["candidate_ids"]))
        np.testing.assert_allclose(observation["probabilities"], expected, rtol=0, atol=1e-6)
        observation, _, over, _, info = env.step(np.flatnonzero(info["action_mask"])[3:8])
        new = info["ids"] >= 0
        rows, classes = rows + info["ids"][new].tolist(), classes + info["labels"][new].tolist()
    assert len(info["test_curve"]) == 4
    assert not hasattr(estimator, "classes_"), "the user's object is cloned, never fitted"


class Bad:
    """Returns whatever it is told to."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        self.answer = answer

    def fit(self, *_: Any) -> Bad:
        return self

    def predict_proba(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.ones(1, len(x), 3) / 3, r"must return a tensor \(1, 10, 4\), got \(1, 10, 3\)"),
        (lambda x: torch.ones(len(x), 4) / 4, r"must return a tensor \(1, 10, 4\), got \(10, 4\)"),
        (lambda x: np.ones((1, len(x), 4)) / 4, r"must return a tensor"),
        (lambda x: None, "must return a tensor .* got NoneType"),
        (lambda x: torch.full((1, len(x), 4), float("nan")), "NaN or infinite"),
        (lambda x: torch.full((1, len(x), 4), float("inf")), "NaN or infinite"),
    ],
)
def test_a_learner_that_answers_wrongly_is_named(
    make_active: Make, answer: Callable[[Tensor], Any], message: str
) -> None:
    env = make_active(learner=Bad(answer), learner_arguments={})
    with pytest.raises(SettingsError, match=f"learner Bad: predict_proba .*{message}|learner Bad.*{message}"):
        env.reset(seed=0)


def test_learners_are_made_by_name_and_refused_with_advice() -> None:
    assert isinstance(make_learner("softmax"), SoftmaxHead)
    assert make_learner("softmax", c=2.0, epochs=3, warm=True).__dict__ == {"c": 2.0, "epochs": 3, "warm": True}
    assert make_learner("logistic", max_iter=7).__dict__ == {"c": 1.0, "max_iter": 7, "tolerance": 3e-5}
    mine = NearestCentre()
    assert make_learner(mine) is mine
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ("softmx", {}, "unknown learner 'softmx'. Did you mean 'softmax'"),
        ("softmax", {"epoch": 3}, "learner 'softmax'.*'epoch'"),
        ("softmax", {"c": 0.0}, "c=0.0 must be positive"),
        ("softmax", {"epochs": 0}, "epochs=0 at least 1"),
        ("logistic", {"c": -1.0}, "c=-1.0 .* must be positive"),
        ("logistic", {"max_iter": 0}, "max_iter=0 at least 1"),
        ("logistic", {"tolerance": 0.0}, "c=1.0 and tolerance=0.0 must be positive"),
        (object(), {}, r"has no fit\(x, y, weight, n_classes, previous\)"),
        (mine, {"c": 1}, "go with a name, not with an object"),
    ]
    for learner, arguments, message in cases:
        with pytest.raises(SettingsError, match=message):
            make_learner(learner, **arguments)
    with pytest.raises(SettingsError, match="has no predict_proba"):
        SklearnLearner(SVC())


def test_a_linear_model_of_known_weights() -> None:
    model = LinearModel(torch.tensor([[[1.0, 0], [0, 1]]]), torch.tensor([[0.0, math.log(3)]]))
    p = model.predict_proba(torch.tensor([[0.0, 0], [math.log(3), 0]]))
    np.testing.assert_allclose(p[0], [[0.25, 0.75], [0.5, 0.5]], rtol=0, atol=1e-6)
    assert model.warm is None
