"""Benchmark runs as Markdown: every system of a file side by side, and beside what is published."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from recsys.benchmark.published import PUBLISHED
from recsys.evaluation.results import SPLITS
from recsys.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from recsys.benchmark.published import Published
    from recsys.benchmark.results import BenchmarkResult
    from recsys.evaluation.results import Protocol, SplitName

Systems = dict[str, list["BenchmarkResult"]]
"""The runs of each system, by the system's name."""

_METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10"}
_PROTOCOLS: Mapping[Protocol, str] = {"masked": "left out", "unmasked": "ranked with the others"}


def rendered(results: Sequence[BenchmarkResult]) -> str:
    """Return the tables of all runs, a part for each file and way of splitting.

    Numbers are means over seeds, with their standard deviation where there are several.
    """
    parts: dict[tuple[str, str], Systems] = {}
    for result in results:
        key = result.data.digest, result.splitting  # files of one name may differ
        parts.setdefault(key, {}).setdefault(result.system, []).append(result)
    return "\n".join(_part(systems) for systems in parts.values())


def _part(systems: Systems) -> str:
    """Return the tables of one file and one way of splitting."""
    first = next(iter(systems.values()))[0]
    data = first.data
    counts = data.users, data.items, data.interactions
    published = PUBLISHED.get(counts)
    name = f" ({published.name})" if published else ""
    if first.splitting != "leave-one-out":
        published = None  # its metrics are of that split
    user_counts = (f"{first.on(split).users:,} users judged in {split}" for split in SPLITS)
    text = [
        f"## {data.file}{name}, {first.splitting}",
        "",
        "{:,} users, {:,} items, {:,} interactions; ".format(*counts)
        + " and ".join(user_counts)
        + ". Full ranking.",
        "",
    ]
    for protocol, seen in _PROTOCOLS.items():
        text += [f"Seen items {seen}:", "", *_means(systems, protocol)]
        if published and protocol == "masked":
            text += [_best_published(published), ""]
    text += _slices(systems)
    text += _lists(systems)
    if published:
        text += _compared(published, systems)
    return "\n".join(text)


def _means(systems: Systems, protocol: Protocol) -> list[str]:
    return markdown_table(
        ["system", "seeds", *(f"{split} {m}" for split in SPLITS for m in _METRICS.values())],
        [
            [
                system,
                str(len(runs)),
                *(
                    _mean_and_deviation(runs, split, protocol, metric)
                    for split in SPLITS
                    for metric in _METRICS
                ),
            ]
            for system, runs in systems.items()
        ],
    )


def _best_published(published: Published) -> str:
    systems = (
        f"{name} " + " / ".join(f"{metrics[metric]:.4f}" for metric in _METRICS)
        for name, metrics in published.masked.items()
    )
    return f"Published: {'; '.join(systems)}."


def _slices(systems: Systems) -> list[str]:
    names = [part.name for part in next(iter(systems.values()))[0].test.slices]
    rows = []
    for system, runs in systems.items():
        by_part = zip(*(run.test.slices for run in runs), strict=True)
        means = (_mean(part.masked["ndcg@10"] for part in parts) for parts in by_part)
        rows.append([system, *(f"{mean:.4f}" for mean in means)])
    title = "NDCG@10 of the test, seen items left out, by part of the users:"
    return [title, "", *markdown_table(["system", *names], rows)]


def _lists(systems: Systems) -> list[str]:
    names = list(next(iter(systems.values()))[0].test.lists)
    rows = []
    for system, runs in systems.items():
        means = (_mean(run.test.lists[name] for run in runs) for name in names)
        minutes = _mean(run.seconds.total for run in runs) / 60
        rows.append([system, *(f"{mean:.4g}" for mean in means), f"{minutes:.1f}"])
    title = "What the lists of the test show:"
    return [title, "", *markdown_table(["system", *names, "minutes"], rows)]


def _compared(published: Published, systems: Systems) -> list[str]:
    """Return ours beside what the authors of a preset published, and the differences."""
    rows = []
    for system, runs in systems.items():
        name = system.partition(":")[0]
        for metric, value in published.unmasked.get(name, {}).items():
            ours = (_mean_and_deviation(runs, split, "unmasked", metric) for split in SPLITS)
            differences = (
                f"{_mean(_values(runs, split, 'unmasked', metric)) - value:+.4f}"
                for split in SPLITS
            )
            rows.append([system, metric, f"{value:.4f}", *ours, *differences])
    if not rows:
        return []
    heads = ["system", "metric", "published", "our validation", "our test"]
    heads += ["validation - published", "test - published"]
    return ["Published figures, seen items not left out:", "", *markdown_table(heads, rows)]


def _values(
    runs: Sequence[BenchmarkResult], split: SplitName, protocol: Protocol, metric: str
) -> list[float]:
    return [run.on(split).metrics(protocol)[metric] for run in runs]


def _mean_and_deviation(
    runs: Sequence[BenchmarkResult], split: SplitName, protocol: Protocol, metric: str
) -> str:
    values = _values(runs, split, protocol, metric)
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{_mean(values):.4f}{deviation}"


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
