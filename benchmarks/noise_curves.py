"""The table and the figure of docs/oracles.md, from the results of the study ``noise``.

python evaluate.py --study noise
python -m benchmarks.noise_curves studies/noise/results.csv --out docs/noise-kather.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from activelabel.evaluation.report import title
from activelabel.evaluation.statistics import FloatArray, hierarchical_difference
from activelabel.evaluation.study.comparisons import by_strategy, grouped, stacked
from activelabel.evaluation.study.results import Block, read_results
from activelabel.files import atomic_path

Scores = dict[str, FloatArray]
"""By strategy, ``(seeds, episodes)``; of one that is not trained one row."""

TRUE_LABELS = "DDQN, true labels"
"""The strategy that was trained without errors; where there are none it is the DDQN."""

_SHOWN = ("random", "margin", TRUE_LABELS, "ddqn")


def rates(blocks: list[Block], final: bool) -> dict[int, Scores]:
    """Return by percentage of wrong labels what every strategy reached: the area under the curve, or the end of it."""
    found: dict[int, Scores] = {}
    for (data,), group in grouped(blocks, ("data",)):
        of = {
            name: np.stack([block.value for block in own]) if final else stacked(own)
            for name, own in by_strategy(group).items()
        }
        of.setdefault(TRUE_LABELS, of["ddqn"])
        found[int(str(data).split()[0])] = of
    return found


def _said(a: FloatArray, b: FloatArray | float, form: str) -> str:
    gap = hierarchical_difference(a, np.zeros(a.shape[-1]) + b)
    return f"{gap.mean:{form}} ({gap.low:{form}}, {gap.high:{form}})"


def table(found: dict[int, Scores]) -> str:
    """Return the table: means, and the DDQN's differences, with their intervals over episodes and training seeds."""
    gaps = ("margin", "random", TRUE_LABELS)
    heads = ["wrong labels", *map(title, _SHOWN), *(f"DDQN minus {title(name)}" for name in gaps)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for rate, of in found.items():
        means = [_said(of[name], 0.0, ".3f") for name in _SHOWN]
        own = ["" if of[name] is of["ddqn"] else _said(of["ddqn"], of[name], "+.3f") for name in gaps]
        lines.append(f"| {rate} % | {' | '.join([*means, *own])} |")
    return "\n".join(lines)


def draw(areas: dict[int, Scores], finals: dict[int, Scores]) -> Figure:
    """Draw both measures against the rate of wrong labels."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axis, found, name in zip(
        figure.subplots(1, 2),
        (areas, finals),
        ("area under the learning curve", "accuracy after 50 labels"),
        strict=True,
    ):
        for place, strategy in enumerate(_SHOWN):
            gaps = [hierarchical_difference(of[strategy], np.zeros(of[strategy].shape[-1])) for of in found.values()]
            x = np.array(list(found)) + 0.3 * (place - 1.5)  # side by side
            y = [gap.mean for gap in gaps]
            error = [[gap.mean - gap.low for gap in gaps], [gap.high - gap.mean for gap in gaps]]
            axis.errorbar(x, y, yerr=error, fmt="o-", ms=4, capsize=3, lw=1.2, label=title(strategy))
        axis.set(title=f"{name}, 95 % interval", xlabel="% of the labels are wrong", xticks=list(found))
        axis.grid(axis="y", color="0.92")
    figure.legend(*axis.get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return figure


def main() -> None:
    """Print the table and write the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="results.csv of the study")
    parser.add_argument("--out", type=Path, default=Path("noise-kather.png"), help="where the figure goes")
    given = parser.parse_args()
    blocks = read_results(given.results)
    areas, finals = rates(blocks, final=False), rates(blocks, final=True)
    print(f"area under accuracy against labels\n\n{table(areas)}\n\naccuracy after the last label\n\n{table(finals)}")
    with atomic_path(given.out) as path:
        draw(areas, finals).savefig(path, format="png", dpi=100)


if __name__ == "__main__":
    main()
