"""A model's card: what it is, what it learnt from and how good it is, as Markdown for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recsys.evaluation.baselines import DECAY, NEIGHBOURS
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.results import PROTOCOLS, SPLITS
from recsys.markdown import markdown_table

if TYPE_CHECKING:
    from recsys.evaluation.results import EvaluationReport, SplitResults
    from recsys.model.runtime import MachineInfo
    from recsys.registry.comparison import Comparison
    from recsys.registry.models import ModelRow

_BASELINES = (
    " The baselines learnt from the same interactions and were not tuned: popularity, own-history "
    "(a user's most frequent items), transitions (the item that most often came next) and "
    f"item-kNN ({NEIGHBOURS} neighbours; an older item counts {DECAY} times as much as the next "
    "one)."
)


_SPLITS = {
    "leave-one-out": "Each user's last item is the test item, and the one before it the validation "
    "item.",
    "temporal": "What came after 80 % of all interactions was held out: a user's first item in the "
    "next 10 % is the validation item, and in the last 10 % the test item.",
}


def model_card(row: ModelRow, comparison: Comparison, machine_info: MachineInfo) -> str:
    """Return the Markdown of a row of `models`, with all its metrics."""
    settings = json.loads(row.config)
    settings.pop("log", None)  # the epochs are drawn in the report
    diffusion = settings.pop("diffusion")  # and so is this, but for its figures
    machine = ", ".join(f"{name} {value}" for name, value in asdict(machine_info).items() if value)
    lines = [
        f"# {row.model_id}",
        "",
        f"Preset `{row.preset}`, seed {row.seed}, trained {row.trained_at:%Y-%m-%d %H:%M} UTC on "
        f"version {row.interactions_version} of `interactions`: {row.users:,} users, "
        f"{row.items:,} items, {row.interactions:,} interactions. {settings['epochs_run']} epochs "
        f"and the evaluation took {row.seconds:.0f} s on {machine}.",
        "",
        f"**{row.status}** when it was trained: {row.why}.",
        "",
        *_refit(row),
        f"{_SPLITS[settings['split']]} Half "
        "of the users chose the weights by it; the others decided whether the model serves. All "
        "items are ranked; `masked` leaves out those that the "
        "user has had, as the lists do by default."
        + (_BASELINES if "item-knn" in comparison.baselines else ""),
        "",
        f"{settings['repeat_share']:.1%} of the test items are repeats: they counted as had.",
        "",
        *_metrics(comparison),
        *_metrics_by_user(comparison.model.test),
        *_diversity(comparison.model.test),
        *_confidence(settings["confidence"]),
        *_diffusion(diffusion),
        *("## Settings", "", "```json", json.dumps(settings, indent=2), "```", ""),
    ]
    return "\n".join(lines)


def _refit(row: ModelRow) -> list[str]:
    if not row.refit_epochs:
        return []
    return [
        f"The weights that serve were trained once more, on whole histories, for {row.refit_epochs}"
        " epochs. All figures are of the judged weights, which have not seen the items that they "
        "are asked for.",
        "",
    ]


def _metrics(comparison: Comparison) -> list[str]:
    systems: dict[str, SplitResults[Any]] = {"this model": comparison.model}
    systems |= dict(sorted(comparison.others().items()))
    test = comparison.model.test
    return [
        "## Metrics",
        "",
        *markdown_table(
            ["", "split", "users", "protocol", *METRICS],
            [
                [name, split, f"{system.on(split).users:,}", protocol]
                + [f"{system.on(split).metrics(protocol)[metric]:.4f}" for metric in METRICS]
                for split in reversed(SPLITS)
                for protocol in PROTOCOLS
                for name, system in systems.items()
            ],
        ),
        "95 % bootstrap intervals over users, test:",
        "",
        *markdown_table(
            ["protocol", *METRICS],
            [
                [protocol]
                + ["{:.4f} to {:.4f}".format(*test.intervals[protocol][name]) for name in METRICS]
                for protocol in PROTOCOLS
            ],
        ),
    ]


def _metrics_by_user(test: EvaluationReport) -> list[str]:
    return [
        "## By user",
        "",
        "Test users by the length of their history, and by whether their test item is popular:",
        "",
        *markdown_table(
            ["users", "", "masked HR@10", "masked NDCG@10"],
            [
                [part.name, f"{part.users:,}"]
                + [f"{part.masked[metric]:.4f}" for metric in ("hr@10", "ndcg@10")]
                for part in test.slices
            ],
        ),
    ]


def _diversity(test: EvaluationReport) -> list[str]:
    return [
        "## Diversity of the lists",
        "",
        *markdown_table(list(test.lists), [[f"{value:,.4g}" for value in test.lists.values()]]),
    ]


def _confidence(confidence: dict[str, Any] | None) -> list[str]:
    if confidence is None:
        return []
    test = confidence["test"]
    return [
        "## Confidence",
        "",
        "How sure the lists are of the user's next item, and how often they had it: test users by "
        f"confidence, in tenths. It was fitted on the validation items of the users who decided "
        f"whether the model serves, for lists of {confidence['k']}. Expected calibration error "
        f"{test['error']:.4f}.",
        "",
        *markdown_table(
            ["mean confidence", "hit rate"],
            [[f"{sure:.3f}", f"{rate:.3f}"] for sure, rate in test["deciles"]],
        ),
    ]


def _diffusion(diffusion: dict[str, Any] | None) -> list[str]:
    if diffusion is None:
        return []
    return [
        "## Diffusion",
        "",
        f"Test NDCG@10 of {diffusion['users']:,} users by delta, the weight of the noised target, "
        "and reverse steps; beside it the difference to the same network on the history alone, "
        f"with its 95 % interval. Lists are made with delta {diffusion['delta']:g} and steps "
        f"{diffusion['steps']}.",
        "",
        *markdown_table(
            ["delta", "steps", "NDCG@10", "difference", "interval"],
            [
                [
                    f"{row['delta']:g}",
                    str(row["steps"]),
                    f"{row['ndcg']:.4f}",
                    f"{row['gain']:+.4f}",
                    f"{row['gain'] - 1.96 * row['gain_error']:+.4f} to "
                    f"{row['gain'] + 1.96 * row['gain_error']:+.4f}",
                ]
                for row in diffusion["qualities"]
            ],
        ),
    ]
