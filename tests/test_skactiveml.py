"""Strategies of scikit-activeml behind the interface of the others."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from pool_play import needs_skactiveml, observe, ranked

from activelabel.baselines import KCenter, SkactivemlStrategy, make_pool_baseline
from activelabel.errors import SettingsError


def test_a_missing_scikit_activeml_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skactiveml.pool", None)
    with pytest.raises(SettingsError, match=r'cannot be imported.*pip install "activelabel\[baselines\]"'):
        make_pool_baseline("skactiveml:CoreSet")


@needs_skactiveml
def test_names_of_scikit_activeml_are_checked() -> None:
    for name, closest in (("skactiveml:Coreset", "CoreSet"), ("skactiveml:Random", "RandomSampling")):
        with pytest.raises(SettingsError, match=f"strategy of scikit-activeml .*Did you mean '{closest}'"):
            make_pool_baseline(name)
    with pytest.raises(SettingsError, match="is a strategy for regression"):
        make_pool_baseline("skactiveml:GreedySamplingTarget")
    with pytest.raises(SettingsError, match="SubSamplingWrapper wraps another"):
        make_pool_baseline("skactiveml:SubSamplingWrapper")
    with pytest.raises(SettingsError, match=r"skactiveml:CoreSet: .*unexpected keyword argument 'colour'"):
        SkactivemlStrategy("CoreSet", colour="red")
    with pytest.raises(SettingsError, match=r"skactiveml:FourDs: .*MixtureModelClassifier.*Give SkactivemlStrategy"):
        make_pool_baseline("skactiveml:FourDs").predict(observe(0))


@needs_skactiveml
def test_core_set_of_scikit_activeml_is_our_k_center() -> None:
    for seed in range(3):
        observation = observe(seed, m=40)
        theirs = make_pool_baseline("skactiveml:CoreSet", 5).predict(observation)[0]
        np.testing.assert_array_equal(theirs, KCenter(5).predict(observation)[0])


@needs_skactiveml
def test_a_strategy_sees_what_is_labelled_and_its_classifier_is_fitted_on_it() -> None:
    from sklearn.linear_model import LogisticRegression

    observation = observe(3)
    for arguments, classifier in (({}, LogisticRegression(C=30)), ({"classifier": LogisticRegression(C=0.1)}, None)):
        model = classifier or arguments["classifier"]
        found = SkactivemlStrategy("UncertaintySampling", 4, **arguments).predict(observation)[0]
        for b in range(4):
            there = observation["labels"][b] >= 0
            model.fit(observation["labelled"][b][there], observation["labels"][b][there])
            scores = 1 - model.predict_proba(observation["embeddings"][b]).max(axis=1)
            assert sorted(found[b]) == sorted(ranked(scores.tolist(), observation["action_mask"][b], 4))


@needs_skactiveml
@pytest.mark.parametrize(
    "name",
    ["BatchBALD", "Clue", "ContrastiveAL", "DiscriminativeAL", "DropQuery", "Falcun", "QueryByCommittee", "Quire"],
)
def test_strategies_that_need_a_committee_a_discriminator_or_classes_get_them(name: str) -> None:
    observation = observe(4, b=2, m=20)
    with reference.global_rng_untouched():
        first, again = (make_pool_baseline(f"skactiveml:{name}", 3, 1).predict(observation)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for b, row in enumerate(first):
        assert len(set(row.tolist())) == 3
        assert observation["action_mask"][b, row].all()


@needs_skactiveml
def test_a_classifier_of_scikit_activeml_is_used_as_it_is() -> None:
    from skactiveml.classifier import MixtureModelClassifier, ParzenWindowClassifier

    observation = observe(5, b=2)
    for name, classifier in (("FourDs", MixtureModelClassifier()), ("ProbabilisticAL", ParzenWindowClassifier())):
        agent = SkactivemlStrategy(name, 2, classifier=classifier)
        np.testing.assert_array_equal(
            agent.predict(observation)[0],
            SkactivemlStrategy(name, 2, classifier=classifier).predict(observation)[0],
        )
        assert classifier.classes is None  # what was given is not changed
