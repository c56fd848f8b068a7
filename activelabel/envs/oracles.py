"""Who answers when an image is labelled: always right, now and then wrong, not at all, for more or less of the budget.

What an oracle is told of the truth goes no further than its answers. They are what the classifier is trained on, what
observations are made of, and what ``labels`` of the info are; the initial labels are given with the episode and are
true. D_R and the test set, and the query set of ``SelectiveLabel-v0``, judge by true labels, so that is the one way by
which the truth comes to a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelabel.data import Cohort
from activelabel.data.cohort import IntArray
from activelabel.data.readers.shared import read_csv
from activelabel.envs.asking import NO_ANSWER, Oracle, Perfect, Questions
from activelabel.errors import DataError, SettingsError, unknown

Array = NDArray[np.float64]


class Annotators(Perfect):
    """Several annotators; each image is the work of one of them, drawn with the episode.

    So are its errors: those of a lower rate are among those of a higher one. Actions stay what they are; nothing but
    the cost tells the agent who answered.

    Parameters
    ----------
    errors: for each annotator the share of images to which it gives a wrong class, each wrong one as often; or its
        confusion matrix ``(C, C)``: in row ``i`` how often an image of class ``i`` is given each class.
    costs: what a label of each annotator takes of the budget, whole numbers; by default 1.
    abstain: share of images on which each annotator gives no answer; by default 0.
    shares: of the images that are the work of each annotator; by default alike.

    Raises
    ------
    SettingsError: if a value is out of range, a matrix is none of probabilities, or the lengths differ.
    """

    draws = 4  # which annotator, silent or not, wrong or not, which wrong class

    def __init__(
        self,
        errors: Sequence[Any] = (0.1,),
        costs: Sequence[int] | None = None,
        abstain: Sequence[float] | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        self.errors = [_error(error) for error in _listed("errors", errors, None, 0.0)]
        n = len(self.errors)
        self.prices: IntArray = np.array([_cost(c) for c in _listed("costs", costs, n, 1)], dtype=np.int64)
        self.abstain = np.array([_share("abstain", s) for s in _listed("abstain", abstain, n, 0.0)])
        parts = np.array([_share("shares", s) for s in _listed("shares", shares, n, 1 / n)])
        if abs(parts.sum() - 1) > 1e-6:
            raise SettingsError(f"shares={shares!r} must sum to 1.")
        self.until = np.cumsum(parts)

    def check(self, cohort: Cohort, classes: tuple[str, ...]) -> None:
        """See :class:`Oracle`."""
        c = len(classes)
        for error in self.errors:
            if isinstance(error, np.ndarray) and error.shape != (c, c):
                raise SettingsError(
                    f"a confusion matrix of {len(error)} classes does not go with {c}: {', '.join(classes)}."
                )

    def costs(self, draws: Tensor) -> Tensor:
        """See :class:`Oracle`."""
        return torch.from_numpy(self.prices).to(draws.device)[self._who(draws)]

    def answers(self, questions: Questions) -> Tensor:
        """See :class:`Oracle`."""
        draws, truth = questions.draws, questions.truth
        miss, wrong = (
            torch.from_numpy(np.stack(table)).to(draws.device)
            for table in zip(*(_tables(error, len(questions.classes)) for error in self.errors), strict=True)
        )
        who = self._who(draws)
        silent = draws[..., 1] < torch.from_numpy(self.abstain).to(draws.device)[who]
        other = (draws[..., 3, None] >= wrong[who, truth]).sum(dim=-1)
        given = torch.where(draws[..., 2] < miss[who, truth], other, truth)
        return torch.where(silent, NO_ANSWER, given)

    def _who(self, draws: Tensor) -> Tensor:
        # The last takes what rounding leaves over.
        return (draws[..., 0, None] >= torch.from_numpy(self.until[:-1]).to(draws.device)).sum(dim=-1)


class Noisy(Annotators):
    """One annotator that errs.

    Parameters
    ----------
    rate: share of images that are given a wrong class, each wrong one as often.
    confusion: instead of it, how often an image of class ``i`` is given each class: row ``i``, of matrix ``(C, C)`` or
        of the same numbers one after the other.

    Raises
    ------
    SettingsError: if both are given or neither, or see :class:`Annotators`.
    """

    def __init__(self, rate: float | None = None, confusion: Sequence[Any] | None = None) -> None:
        if (rate is None) == (confusion is None):
            raise SettingsError("a noisy oracle needs a rate, or a confusion matrix instead.")
        super().__init__([rate if confusion is None else confusion])


class Abstaining(Annotators):
    """One annotator that is right or gives no answer.

    Parameters
    ----------
    rate: share of images without an answer.

    Raises
    ------
    SettingsError: if the rate is not 0 to 1.
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__([0.0], abstain=[rate])


class Human(Perfect):
    """A person: asked in the terminal, or who has filled in a CSV file. For one episode or task at a time.

    In ``SelectiveLabel-v0`` nobody is asked what the random selector chose; a file is of one of the ``conditions``.

    Parameters
    ----------
    file: a CSV file with the columns ``image`` (its name in the cohort, or its row where there are no names) and
        ``label`` (the name of a class; empty: no answer). By default the terminal, where an empty line is no answer.
    ask: shows a question and returns what was typed.
    """

    one_at_a_time = True

    def __init__(self, file: str | Path | None = None, ask: Callable[[str], str] = input) -> None:
        self.file, self._ask = None if file is None else Path(file), ask
        self._known = {} if self.file is None else _filled_in(self.file)
        self._said: dict[tuple[str, tuple[str, ...]], str] = {}

    def check(self, cohort: Cohort, classes: tuple[str, ...]) -> None:
        """See :class:`Oracle`."""
        for image, label in self._known.items():
            if label and label not in classes:
                raise SettingsError(f"{self.file}, image '{image}': {unknown('class', label, classes)}")

    def answers(self, questions: Questions) -> Tensor:
        """See :class:`Oracle`; a person is asked once which of the classes an image is of.

        Raises
        ------
        SettingsError: if the file does not have an image, or the terminal is closed.
        """
        answers, names = torch.full_like(questions.truth, NO_ANSWER), questions.cohort.names
        for i, j in questions.asked.nonzero().tolist():
            row = int(questions.rows[i, j])
            label = self._label_of(str(row if names is None else names[row]), questions.classes)
            answers[i, j] = questions.classes.index(label) if label else NO_ANSWER
        return answers

    def _label_of(self, image: str, classes: tuple[str, ...]) -> str:
        if self.file is None:
            if (image, classes) not in self._said:
                self._said[image, classes] = self._ask_for(image, classes)
            return self._said[image, classes]
        if image not in self._known:
            raise SettingsError(f"{self.file} has no row of image '{image}'; add it, with an empty label if unsure.")
        return self._known[image]

    def _ask_for(self, image: str, classes: tuple[str, ...]) -> str:
        while True:
            try:
                said = self._ask(f"{image}: {', '.join(classes)}, or nothing if unsure? ").strip()
            except EOFError:
                raise SettingsError(f"nobody answered about image '{image}': the terminal is closed.") from None
            if not said or said in classes:
                return said


ORACLES: dict[str, Callable[..., Oracle]] = {
    "perfect": Perfect,
    "noisy": Noisy,
    "abstaining": Abstaining,
    "annotators": Annotators,
    "human": Human,
}
"""The oracles by name."""


def make_oracle(oracle: str | Oracle, **arguments: Any) -> Oracle:
    """Return an oracle by name, or the given one.

    Raises
    ------
    SettingsError: if the name is unknown, an argument is, or the object has not all that an oracle has.
    """
    if not isinstance(oracle, str):
        missing = [name for name in ("draws", "check", "costs", "answers") if not hasattr(oracle, name)]
        if missing:
            raise SettingsError(f"oracle={oracle!r} has no {', '.join(missing)}; envs.oracles.Perfect is a base.")
        if arguments:
            raise SettingsError(f"oracle arguments {arguments} go with a name, not with an object.")
        return oracle
    if oracle not in ORACLES:
        raise SettingsError(unknown("oracle", oracle, ORACLES))
    try:
        return ORACLES[oracle](**arguments)
    except TypeError as error:
        raise SettingsError(f"oracle '{oracle}': {error}.") from None


def _listed(name: str, values: Any, n: int | None, default: float) -> list[Any]:
    """Return a value for each of ``n`` annotators, or of any number."""
    if values is None and n is not None:
        return [default] * n
    if not isinstance(values, (list, tuple, np.ndarray)) or not len(values) or (n is not None and len(values) != n):
        raise SettingsError(f"{name}={values!r} must be a list of {'values' if n is None else n}, one an annotator.")
    return list(values)


def _cost(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise SettingsError(f"costs: {value!r} must be a whole number of at least 1.")
    return int(value)


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise SettingsError(f"{name}: {value!r} must be a share, 0 to 1.")
    return float(value)


def _error(error: Any) -> float | Array:
    """Return a rate of errors or a confusion matrix."""
    if not isinstance(error, (list, tuple, np.ndarray)):
        return _share("rate of errors", error)
    try:
        matrix = np.array(error, dtype=np.float64)
    except ValueError:
        raise SettingsError(f"confusion {error!r} must be numbers, as many in each row as there are rows.") from None
    side = round(float(np.sqrt(matrix.size)))
    if matrix.shape not in ((side, side), (side * side,)) or side < 2:
        raise SettingsError(f"confusion of shape {matrix.shape} must be square: a row and a column for each class.")
    matrix = matrix.reshape(side, side)
    for i, row in enumerate(matrix):
        if not ((row >= 0) & (row <= 1)).all() or abs(row.sum() - 1) > 1e-6:
            raise SettingsError(f"confusion: row {i}, {row.tolist()}, must be probabilities that sum to 1.")
    return matrix


def _tables(error: float | Array, n_classes: int) -> tuple[Array, Array]:
    """Return how often each class is missed ``(C,)``, and sums of the shares of the wrong ones ``(C, C)``, up to 1."""
    others = 1 - np.eye(n_classes)
    if isinstance(error, float):
        miss = np.full(n_classes, error)
    else:
        miss, others = 1 - np.diag(error), np.where((others * error).any(axis=1, keepdims=True), others * error, others)
    sums = others.cumsum(axis=1)
    return miss, sums / sums[:, -1:]


def _filled_in(file: Path) -> dict[str, str]:
    table = read_csv(file)
    known: dict[str, str] = {}
    for line, image, label in zip(table.lines, table.text("image"), table.text("label"), strict=True):
        if known.get(image, label) != label:
            raise DataError(f"{file}, line {line}: image '{image}' has two labels, '{known[image]}' and '{label}'.")
        known[image] = label
    return known
