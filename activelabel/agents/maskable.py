"""The set encoder for sb3-contrib's ``MaskablePPO``; needs ``pip install "activelabel[contrib]"``."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import Schedule

from activelabel.agents.set_encoder import SetExtractor, make_layers

try:
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
except ImportError as error:
    raise ImportError('MaskableSetPolicy needs sb3-contrib: pip install "activelabel[contrib]".') from error


class MaskableSetPolicy(MaskableActorCriticPolicy):
    """:class:`~activelabel.agents.set_encoder.SetPolicy` of masked actions, ``Discrete(N)`` or
    ``MultiDiscrete([N] * K)``: what the mask excludes is never chosen.

    Parameters
    ----------
    *args, **kwargs: as for sb3-contrib's ``MaskableActorCriticPolicy``; ``features_extractor_kwargs`` are those of
        :class:`~activelabel.agents.set_encoder.SetExtractor`. ``net_arch``, ``activation_fn`` and ``ortho_init`` have
        no effect.

    Raises
    ------
    SettingsError: if the observation has no candidates, or the actions are not of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": SetExtractor, **kwargs})

    def _build(self, lr_schedule: Schedule) -> None:
        make_layers(self, lr_schedule)
