"""Benchmark runs as Markdown: every system of a file side by side, and beside what is published."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from recsys.benchmark.published import PUBLISHED
from recsys.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from recsys.benchmark.published import Published

Runs = list["Mapping[str, Any]"]

_SPLITS = ("validation", "test")
_MAIN, _NAMES = ("hr@10", "ndcg@10"), ("HR@10", "NDCG@10")


def rendered(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables of all runs, a part for each file and way of splitting.

    Figures are means over seeds, with their standard deviation where there are several.
    """
    parts: dict[tuple[str, str], dict[str, Runs]] = {}
    for result in results:
        named = result["data"]["digest"], result["splitting"]  # files of one name may differ
        parts.setdefault(named, {}).setdefault(result["system"], []).append(result)
    return "\n".join(_part(splitting, systems) for (_, splitting), systems in parts.items())


def _part(splitting: str, systems: Mapping[str, Runs]) -> str:
    first = next(iter(systems.values()))[0]
    data = first["data"]
    counts = data["users"], data["items"], data["interactions"]
    published = PUBLISHED.get(counts)
    known = f" ({published.name})" if published else ""
    text = [
        f"## {data['file']}{known}, {splitting}",
        "",
        "{:,} users, {:,} items, {:,} interactions; ".format(*counts)
        + " and ".join(f"{first[split]['users']:,} users judged in {split}" for split in _SPLITS)
        + ". Full ranking.",
        "",
    ]
    for protocol, said in (("masked", "left out"), ("unmasked", "ranked with the others")):
        text += [f"Seen items {said}:", ""]
        text += markdown_table(
            ["system", "seeds", *(f"{split} {name}" for split in _SPLITS for name in _NAMES)],
            [
                [
                    system,
                    str(len(runs)),
                    *(
                        _said(runs, split, protocol, metric)
                        for split in _SPLITS
                        for metric in _MAIN
                    ),
                ]
                for system, runs in systems.items()
            ],
        )
        if published and protocol == "masked" and splitting == "leave-one-out":
            reached = ", ".join(
                f"{name} " + " / ".join(f"{figures[metric]:.4f}" for metric in _MAIN)
                for name, figures in published.masked.items()
            )
            text += [f"Published: {reached}.", ""]
    parts = [part["name"] for part in first["test"]["slices"]]
    text += ["NDCG@10 of the test, seen items left out, by part of the users:", ""]
    text += markdown_table(
        ["system", *parts],
        [
            [
                system,
                *(
                    f"{_mean(run['test']['slices'][at]['masked']['ndcg@10'] for run in runs):.4f}"
                    for at in range(len(parts))
                ),
            ]
            for system, runs in systems.items()
        ],
    )
    text += ["What the lists of the test show:", ""]
    shown = list(first["test"]["lists"])
    text += markdown_table(
        ["system", *shown, "minutes"],
        [
            [
                system,
                *(f"{_mean(run['test']['lists'][each] for run in runs):.4g}" for each in shown),
            ]
            + [f"{_mean(sum(run['seconds'].values()) for run in runs) / 60:.1f}"]
            for system, runs in systems.items()
        ],
    )
    if published and splitting == "leave-one-out":
        text += _against(published, systems)
    return "\n".join(text)


def _against(published: Published, systems: Mapping[str, Runs]) -> list[str]:
    rows = []
    for system, runs in systems.items():
        name = system.partition(":")[0]
        for metric, figure in published.unmasked.get(name, {}).items():
            differences = (
                f"{_mean(_figures(runs, split, 'unmasked', metric)) - figure:+.4f}"
                for split in _SPLITS
            )
            said = (_said(runs, split, "unmasked", metric) for split in _SPLITS)
            rows.append([system, metric, f"{figure:.4f}", *said, *differences])
    if not rows:
        return []
    heads = ["system", "metric", "published", "our validation", "our test"]
    heads += ["validation - published", "test - published"]
    return ["Published figures, seen items not left out:", "", *markdown_table(heads, rows)]


def _figures(runs: Runs, split: str, protocol: str, metric: str) -> list[float]:
    return [run[split][protocol][metric] for run in runs]


def _said(runs: Runs, split: str, protocol: str, metric: str) -> str:
    figures = _figures(runs, split, protocol, metric)
    spread = f" ± {statistics.stdev(figures):.4f}" if len(figures) > 1 else ""
    return f"{_mean(figures):.4f}{spread}"


def _mean(figures: Iterable[float]) -> float:
    return statistics.fmean(figures)
