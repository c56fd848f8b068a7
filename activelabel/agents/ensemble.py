"""An ensemble: one selector that is the mean of several trainings.

Two trainings that differ in nothing but their seed choose other images, most of all on conditions that neither was
trained on, where nothing in the training says what to do. The mean of their logits keeps what they agree on
(Hansen and Salamon 1990, "Neural Network Ensembles"). It costs as many trainings, and as many times the time of the
network when images are chosen; clusters are made once.

::

    python train.py --members 5

    models = [Reinforce("MLPPolicy", env, seed=seed).learn(10_000) for seed in range(5)]
    join(models).save("ensemble.zip")
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from activelabel.agents import saving
from activelabel.agents.policies import Ensemble
from activelabel.agents.reinforce import Reinforce
from activelabel.errors import SettingsError


def join(models: Sequence[Reinforce]) -> Reinforce:
    """Return a model whose logits are the mean of those of several.

    It has the settings of the first, no env, no notes, and no training behind it: what it is given to learn from it
    learns as one network.

    Parameters
    ----------
    models: trained, alike but for their weights and their seeds; none is an ensemble, none leaves pools to K-Medoids.

    Raises
    ------
    SettingsError: if there is none, or they do not go together.
    """
    if not models:
        raise SettingsError("join needs at least one model.")
    first = models[0]
    for number, model in enumerate(models):
        _check(number, model, first)
    kwargs = {**first.policy_kwargs, "members": len(models)}
    joined = saving.without_weights(type(first), saving.header(first) | {"policy_kwargs": kwargs}, first.device)
    selector = joined.policy.selector
    members = selector.members if isinstance(selector, Ensemble) else [selector]
    for member, model in zip(members, models, strict=True):
        member.load_state_dict(model.policy.selector.state_dict())
    joined.policy.load_state_dict(_besides_selector(first), strict=False)
    joined.standardizer, joined.k = first.standardizer, first.k
    return joined


def _besides_selector(model: Reinforce) -> dict[str, Tensor]:
    """Return what a policy holds besides its network."""
    return {name: value for name, value in model.policy.state_dict().items() if not name.startswith("selector.")}


def _check(number: int, model: Reinforce, first: Reinforce) -> None:
    """Check that a model can be joined with the first."""
    kinds = [(type(m), m.policy_class, m.k, m.policy.dims, m.replacement, _without_seed(m)) for m in (model, first)]
    if kinds[0] != kinds[1]:
        raise SettingsError(
            f"model {number} is another one than model 0: "
            f"{model.policy_class.__name__}({model.policy_kwargs}) for K = {model.k} of {model.policy.dims}, "
            f"not {first.policy_class.__name__}({first.policy_kwargs}) for K = {first.k} of {first.policy.dims}."
        )
    if isinstance(model.policy.selector, Ensemble):
        raise SettingsError(f"model {number} is an ensemble itself; join what it was made of.")
    if model.familiarity is not None:
        raise SettingsError(f"model {number} leaves pools that are not familiar to K-Medoids; join models that do not.")
    own, others = _besides_selector(model), _besides_selector(first)
    if not all(torch.equal(own[name], others[name]) for name in others):
        raise SettingsError(f"model {number} was prepared for another env than model 0.")
    both = model.standardizer, first.standardizer
    if None in both or not both[0].equals(both[1]):  # type: ignore[union-attr, arg-type]
        raise SettingsError(f"model {number} was trained on images that are scaled otherwise than those of model 0.")


def _without_seed(model: Reinforce) -> dict[str, object]:
    return {name: value for name, value in model.policy_kwargs.items() if name != "init_seed"}
