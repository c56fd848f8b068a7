"""The embedded cohort: generated image embeddings that host what MedSelect studies.

The generative model, for image ``i`` of patient ``p(i)``::

    age_p    ~ Normal(58, 18) within 18..95          female_p ~ Bernoulli(0.45)
    frontal_i ~ Bernoulli(0.7)                       z_ic ~ Bernoulli(prevalence_c), c = 1..8
    flaw_i   ~ Uniform(0, 1)                         blur, exposure: seen in the image, not in the record
    clarity_i = (1 if frontal else lateral_clarity) * (1 - age_fade * (age_p - 18) / 77) * (1 - flaw_fade * flaw_i)
    x_i = sum_c z_ic * clarity_i * e_ic * (strength_shared * s + strength_own * v_c)    the conditions
        + (1 - frontal_i) * view_shift * l + (age_p - 58) / 18 * age_shift * a          view and age
        + (flaw_i - 1/2) * flaw_shift * b                                               technical flaws
        + nuisance * (2 - clarity_i) ** nuisance_power * N_i B                          unclear images scatter more
        + N(0, noise^2 I)

``s``, ``v_c``, ``l``, ``a``, ``b`` are random unit vectors, ``B`` is a random basis of a nuisance subspace of ``rank``
dimensions, and ``e_ic`` is a log-normal extent of disease, so that positives are more dispersed than negatives. Then
labels get noise: a share of positives is missed and as many are called without reason, and a share of the positive
calls becomes uncertain (-1). "No Finding" is every image without a call.

Three things make a good selection here. Clear images carry the signal; age and view say only in part which those are.
What all frontal or all old images share points away from the disease and cancels only between a positive and a
negative prototype, so both classes are needed. And a central image is better than an odd one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelabel.data.cohort import Cohort, Source
from activelabel.errors import SettingsError
from activelabel.seeding import stream

CONDITIONS = {
    "Consolidation": 0.06,
    "Enlarged Cardiomediastinum": 0.06,
    "Cardiomegaly": 0.08,
    "Pneumothorax": 0.06,
    "Atelectasis": 0.09,
    "Edema": 0.1,
    "Pleural Effusion": 0.11,
    "Lung Opacity": 0.12,
}
"""The conditions of MedSelect §2 and the prevalence that each gets."""


@dataclass(frozen=True)
class SyntheticSettings:
    """Size and parameters of the generative model above.

    ``dispersion`` is the standard deviation of the logarithm of the extent of disease ``e``; 0 makes positives as
    compact as negatives. ``missed`` is the share of positives whose call is missing, ``uncertain`` the share of
    calls that become -1. ``conditions`` is how many of :data:`CONDITIONS` there are, the first ones; where they are
    fewer, each is as much more frequent as leaves the calls of an image as many as they were.
    """

    n: int = 24_000
    dim: int = 64
    strength_shared: float = 1.0
    strength_own: float = 5.0
    dispersion: float = 0.3
    lateral_clarity: float = 0.25
    age_fade: float = 0.3
    flaw_fade: float = 0.7
    flaw_shift: float = 4.0
    view_shift: float = 2.0
    age_shift: float = 1.5
    nuisance: float = 0.5
    nuisance_power: float = 1.0
    rank: int = 12
    noise: float = 0.3
    missed: float = 0.03
    uncertain: float = 0.05
    seed: int = 0
    conditions: int = len(CONDITIONS)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the last is the normal one."""
        return (*list(CONDITIONS)[: self.conditions], "No Finding")


_SIZES = {"dim": (32, 256), "rank": (4, 24), "conditions": (1, len(CONDITIONS))}
_SHAPE = {
    "strength_shared": (0.5, 2.0),
    "strength_own": (3.0, 8.0),
    "dispersion": (0.1, 0.6),
    "nuisance": (0.3, 0.9),
    "noise": (0.2, 0.6),
    "lateral_clarity": (0.25, 1.0),
    "flaw_fade": (0.0, 0.7),
    "missed": (0.0, 0.03),
    "uncertain": (0.0, 0.05),
}


def shaped(number: int) -> SyntheticSettings:
    """Return the settings of cohort ``synthetic-{number}``: 6000 images in a space whose shape the number decides.

    Drawn evenly are ``dim`` from 32 to 256, ``rank`` from 4 to 24, ``conditions`` from 1 to 8, ``strength_shared`` from
    0.5 to 2, ``strength_own`` from 3 to 8, ``dispersion`` from 0.1 to 0.6, ``nuisance`` from 0.3 to 0.9, ``noise`` from
    0.2 to 0.6, ``lateral_clarity`` from 0.25 to 1, ``flaw_fade`` from 0 to 0.7, ``missed`` from 0 to 0.03 and
    ``uncertain`` from 0 to 0.05. All else is as in every synthetic cohort.

    Raises
    ------
    SettingsError: if the number is below 1.
    """
    if number < 1:
        raise SettingsError(f"synthetic-{number}: the cohorts are numbered from 1.")
    rng = stream(number, "shape")
    drawn: dict[str, Any] = {name: int(rng.integers(*ends, endpoint=True)) for name, ends in _SIZES.items()}
    drawn |= {name: float(rng.uniform(*ends)) for name, ends in _SHAPE.items()}
    return SyntheticSettings(n=6000, seed=number, **drawn)


def numbered(name: str) -> SyntheticSettings | None:
    """Return the settings of a cohort by its name, ``synthetic-1``, ``synthetic-2`` ...; None where it is no such
    name."""
    found = re.fullmatch("synthetic-([1-9][0-9]{0,17})", name)
    return None if found is None else shaped(int(found[1]))


def make_synthetic(settings: SyntheticSettings | None = None) -> Cohort:
    """Generate a cohort of up to eight conditions and No Finding.

    Raises
    ------
    SettingsError: if a size or a share is out of range.
    """
    s = settings or SyntheticSettings()
    if s.n < 10 or s.dim < 2 or not 0 < s.rank <= s.dim:
        raise SettingsError(
            f"a synthetic cohort needs n >= 10, dim >= 2, 0 < rank <= dim; got {s.n}, {s.dim}, {s.rank}."
        )
    if not 1 <= s.conditions <= len(CONDITIONS):
        raise SettingsError(f"conditions={s.conditions} of a synthetic cohort must be from 1 to {len(CONDITIONS)}.")
    if not (0 <= s.missed < 1 and 0 <= s.uncertain < 1):
        raise SettingsError(f"missed={s.missed} and uncertain={s.uncertain} are shares between 0 and 1.")
    rng = stream(s.seed, "synthetic")
    patient, age, female, frontal = _patients(s.n, rng)
    every = np.array(list(CONDITIONS.values()))
    prevalence = every[: s.conditions] * (every.sum() / every[: s.conditions].sum())
    disease = rng.random((s.n, len(prevalence))) < prevalence
    clarity = np.where(frontal, 1.0, s.lateral_clarity) * (1 - s.age_fade * (age - 18) / 77)
    flaw = rng.random(s.n)
    clarity = clarity * (1 - s.flaw_fade * flaw)
    features = _embed(s, rng, disease, clarity, frontal, age, flaw)
    return Cohort(
        labels=_label(s, rng, disease),
        classes=s.classes,
        features=features,
        normal=s.conditions,
        clinical={
            "age": age.astype(np.float32),
            "female": female.astype(np.float32),
            "frontal": frontal.astype(np.float32),
        },
        patient=patient,
        source=Source(name="synthetic", licence="CC0", citation="activelabel.data.synthetic", backbone="generated"),
    )


def _patients(n: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    images_each = rng.integers(1, 4, size=n)  # more patients than needed; cut to n images
    patient = np.repeat(np.arange(n), images_each)[:n]
    age = np.clip(rng.normal(58, 18, size=n), 18, 95)[patient]
    female = (rng.random(n) < 0.45)[patient]
    return patient, age, female, rng.random(n) < 0.7


def _unit(rng: np.random.Generator, count: int, dim: int) -> NDArray[np.float64]:
    vectors = rng.standard_normal((count, dim))
    units: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _embed(
    s: SyntheticSettings,
    rng: np.random.Generator,
    disease: NDArray[np.bool_],
    clarity: NDArray[np.float64],
    frontal: NDArray[np.bool_],
    age: NDArray[np.float64],
    flaw: NDArray[np.float64],
) -> NDArray[np.float32]:
    shared, view, ageing, flawed = _unit(rng, 4, s.dim)
    own = _unit(rng, disease.shape[1], s.dim)
    basis = _unit(rng, s.rank, s.dim)
    extent = np.exp(s.dispersion * rng.standard_normal(disease.shape) - s.dispersion**2 / 2)
    amount = disease * extent * clarity[:, None]
    x = amount @ (s.strength_shared * shared + s.strength_own * own)
    x += (s.view_shift * ~frontal)[:, None] * view + (s.age_shift * (age - 58) / 18)[:, None] * ageing
    x += (s.flaw_shift * (flaw - 0.5))[:, None] * flawed
    scatter = s.nuisance * (2 - clarity) ** s.nuisance_power
    x += scatter[:, None] * (rng.standard_normal((s.n, s.rank)) @ basis)
    x += s.noise * rng.standard_normal((s.n, s.dim))
    return np.ascontiguousarray(x, dtype=np.float32)


def _label(s: SyntheticSettings, rng: np.random.Generator, disease: NDArray[np.bool_]) -> NDArray[np.int8]:
    missed = disease & (rng.random(disease.shape) < s.missed)
    # As many false calls as missed ones, condition by condition.
    rate = s.missed * disease.mean(axis=0) / np.maximum(1 - disease.mean(axis=0), 1e-9)
    called = (disease & ~missed) | (~disease & (rng.random(disease.shape) < rate))
    labels = called.astype(np.int8)
    labels[called & (rng.random(disease.shape) < s.uncertain)] = -1
    normal = ~called.any(axis=1)
    return np.column_stack([labels, normal.astype(np.int8)])
