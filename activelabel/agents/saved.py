"""Saving and loading as every agent of ours does it: ``save`` and ``load`` of Stable-Baselines3, without pickles."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from stable_baselines3.common.type_aliases import Schedule

from activelabel.agents.arguments import StepSchedule
from activelabel.agents.checkpoint import model_path, read_model, write_model
from activelabel.agents.saving import damage, restore_env_state
from activelabel.errors import SettingsError
from activelabel.reading import AtMost, allowed_bytes, naming

Self = TypeVar("Self", bound="SavedAgent")


class SavedAgent:
    """To be inherited before an algorithm of Stable-Baselines3."""

    optional: ClassVar[tuple[str, ...]] = ()
    """What ``save(path, exclude=...)`` may leave out."""

    env: Any
    seed: int | None
    learning_rate: float | Schedule
    lr_schedule: Schedule
    _last_obs: Any

    @abstractmethod
    def _contents(self, exclude: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the header, JSON-serialisable, and the tensors of the model file."""

    @classmethod
    @abstractmethod
    def _restored(cls: type[Self], header: dict[str, Any], tensors: dict[str, Any], device: torch.device | str) -> Self:
        """Return the model of a header and its tensors."""

    @abstractmethod
    def _change(self, settings: dict[str, Any]) -> None:
        """Change settings of a restored model."""

    def _setup_lr_schedule(self) -> None:
        rate = self.learning_rate
        self.lr_schedule = rate if callable(rate) else StepSchedule(rate)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []

    @abstractmethod
    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Train on another env from now on."""

    def save(
        self,
        path: str | os.PathLike[str] | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write the model, its optimiser, its generators and the state of its env, so that training continues exactly.

        Parameters
        ----------
        path: ``.zip`` is added where there is no suffix; with ``.safetensors`` the file has that format. Streams are
            not supported.
        exclude: parts of :attr:`optional` to leave out, enough to predict.
        include: must be empty: the file has one form.
        """
        exclude = frozenset(exclude or ())
        if isinstance(path, io.BufferedIOBase) or include or exclude - set(self.optional):
            also = f", and exclude={list(self.optional)}" if self.optional else ""
            raise SettingsError(f"{type(self).__name__}.save takes a path alone{also}.")
        write_model(path, type(self).__name__, *self._contents(exclude))

    @classmethod
    def load(
        cls: type[Self],
        path: str | os.PathLike[str],
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Read a model.

        Parameters
        ----------
        path: what :meth:`save` wrote.
        env: to train on; not needed to predict.
        device: where to.
        custom_objects: must be empty: model files hold no objects.
        print_system_info: ignored.
        force_reset: start the env anew; with False it goes on with the task or episode it was saved at, and training
            continues exactly.
        **kwargs: settings to change, such as ``batch_size``, ``tensorboard_log`` or ``verbose``.

        Raises
        ------
        CheckpointError: if the file is missing, damaged, or not a model of this agent.
        """
        if custom_objects:
            raise SettingsError(f"{cls.__name__}.load takes no custom_objects: model files hold no objects.")
        header, tensors = read_model(path, cls.__name__)
        with damage(path), AtMost(allowed_bytes(model_path(path).stat().st_size)):
            model = cls._restored(header, tensors, device)
        try:
            model._change(kwargs)
            if env is not None:
                model.set_env(env, force_reset=force_reset)
                model.env.seed(model.seed)
                if not force_reset:
                    with damage(path, settings=False):
                        model._last_obs = restore_env_state(model.env, header)
        except SettingsError as error:
            raise SettingsError(naming(path, error)) from None
        return model
