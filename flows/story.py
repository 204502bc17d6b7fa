"""What a run tells a person: a sentence a step, a table a step, and the message of its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recsys.catalog.query import query_catalog
from recsys.errors import LakeError
from recsys.markdown import markdown_table, markdown_values
from recsys.operations.summary import sink_problem
from recsys.registry.models import read_card

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.operations.runs import Run

Outcome = dict[str, Any]
"""step -> the step's result, as `runs.outcome` has it."""

_NIGHT_BEFORE = """
select outcome from runs where flow = 'nightly' and status = 'completed' and run_id <> $run_id
order by started desc limit 1
"""


def night_before(run: Run) -> Outcome:
    """Return the outcome of the newest night before this run; empty where there is none.

    It is for comparison only: where it can't be read, there is nothing to compare with.
    """
    if run.night_before is None:
        try:
            rows = query_catalog(run.lake, _NIGHT_BEFORE, {"run_id": run.run_id}).to_pylist()
        except LakeError:
            rows = []
        run.night_before = json.loads(rows[0]["outcome"]) if rows else {}
    return run.night_before


def step_told(run: Run, step: str) -> tuple[str, str]:
    """Return what a person is told of a step: a line for the log, a page for Prefect.

    Raises:
        LakeError: the card of a new model can't be read.
    """
    new, before = run.outcome[step], night_before(run).get(step)
    if step == "ingest":
        return ingest_line(new), ingest_page(new, before)
    if step == "recommend":
        return lists_line(new, before), lists_page(new, before)
    if step == "train":
        line = training_line(new)
        return line, f"**{line}**\n\n{read_card(run.lake, new['model_id'])}"
    if step == "policy":
        line = f"{'trains' if new['train'] else 'does not train'}: {new['why']}"
        return line, f"# This night {line}\n"
    if step == "live_metrics":
        return live_line(new), live_page(new)
    if step == "drift":
        line = drift_line(new)
        return line, f"# {line.capitalize()}\n\nIt took {new['seconds']:.0f} s.\n"
    if step.startswith("deliver "):
        days = ", ".join(map(str, new["delivered"])) or "nothing new"
        line = f"{new['sink']} got {days}: {new['rows']:,} rows in {new['seconds']:.0f} s"
        return line, markdown_values(f"Lists delivered to {new['sink']}", new)
    if step in ("promote", "rollback"):
        line = f"{new['model_id'] or 'popularity alone'} serves: {new['why']}"
        return line, f"# {line}\n"
    return f"{step}: done", markdown_values(step.capitalize(), new)


def ingest_line(new: Mapping[str, Any]) -> str:
    """Return e.g. ``1,687 new interactions, 9 refused``."""
    changes = "".join(
        f", {new[change]:,} {change}" for change in ("replaced", "deleted") if new.get(change)
    )
    return f"{new['accepted']:,} new interactions, {new['quarantined']:,} refused{changes}"


def lists_line(new: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """Return e.g. ``2,886 users served (113 more than on 2026-11-26), 0 by popularity``."""
    change = new["users"] - before["users"] if before else 0
    than = "" if not before else f"on {before['run_date']}"
    more = f" ({abs(change):,} {'more' if change > 0 else 'fewer'} than {than})" if change else ""
    without = f", {new['without_list']:,} without a list" if new["without_list"] else ""
    return f"{new['users']:,} users served{more}, {new['popular_users']:,} by popularity{without}"


def training_line(new: Mapping[str, Any]) -> str:
    """Return e.g. ``m-1a2b serves: validation NDCG@10 0.0621 (...)``."""
    verb = "serves" if new["status"] == "champion" else f"is {new['status']}"
    advice = f". {new['advice']}" if new.get("advice") else ""
    return f"{new['model_id']} {verb}: {new['why']}{advice}"


def live_line(new: Mapping[str, Any]) -> str:
    """Return e.g. ``live hits of 2026-11-26: 48.0% of 312 active users (popularity: 40.1%)``."""
    if not new.get("users"):
        return "no live hits yet"
    popularity = new["popularity_hit_rate"]
    beside = "" if popularity is None else f" (popularity: {popularity:.1%})"
    return (
        f"live hits of {new['run_date']}: {new['hit_rate']:.1%} of {new['users']:,} active users"
        f"{beside}"
    )


def drift_line(new: Mapping[str, Any]) -> str:
    """Return e.g. ``the data drifted: hours 0.31 (limit 0.25)``."""
    if new["verdict"] == "unknown":
        return "drift: too few interactions to say"
    return f"the data drifted: {new['why']}" if new["why"] else "the data did not drift"


def live_page(new: Mapping[str, Any]) -> str:
    """Return the artifact of live metrics."""
    return (
        f"# {live_line(new).capitalize()}\n\nA hit: on the first day, somebody took one of the "
        f"first {new['k'] or 'ten'} items of their list. Counted are users with a list who took an "
        "item that was new to them. "
        f"The table `live_metrics` has {new['rows']:,} figures of the last "
        f"{new['nights']:,} nights.\n\nIt took {new['seconds']:.0f} s.\n"
    )


def night_line(outcome: Outcome, before: Outcome) -> str:
    """Return the message of a night's end: what is new, who is served, by which champion."""
    parts = []
    if "ingest" in outcome:
        parts.append(ingest_line(outcome["ingest"]))
    if "recommend" in outcome:
        parts.append(lists_line(outcome["recommend"], before.get("recommend")))
    if outcome.get("live_metrics", {}).get("users"):
        parts.append(live_line(outcome["live_metrics"]))
    if outcome.get("drift", {}).get("why"):
        parts.append(drift_line(outcome["drift"]))
    parts += [problem for step, told in outcome.items() if (problem := sink_problem(step, told))]
    training = outcome.get("train", {})
    if "status" in training:
        parts.append(f"trained {training['model_id']}: {training['status']}")
    elif problem := training.get("refused") or training.get("failed"):
        parts.append(f"not trained: {problem}")
    age = outcome.get("policy", {}).get("champion_age_days")
    if age is not None and training.get("status") != "champion":
        parts.append(f"champion {age:g} days old")
    return "; ".join(parts)


def ingest_page(new: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Return the artifact of an ingest."""
    rows = [
        ("new interactions", "accepted"),
        ("refused rows, in `quarantine`", "quarantined"),
        ("rows that the lake had", "duplicates"),
        ("rows read", "rows_in"),
        ("files read", "objects"),
    ]
    title = f"{new['accepted']:,} new interactions"
    return _page(title, rows, new, before)


def lists_page(new: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Return the artifact of a night's lists."""
    rows = [
        ("users served", "users"),
        ("of these, by popularity alone", "popular_users"),
        ("users without a list", "without_list"),
        ("items listed", "rows"),
    ]
    title = f"{new['users']:,} lists for {new['run_date']}"
    if new["status"] != "published":
        title += ", as they were"
    served_by = new["model_id"] or "popularity"
    return _page(title, rows, new, before) + f"\nServed by: {served_by}.\n"


def _page(
    title: str,
    rows: list[tuple[str, str]],
    new: Mapping[str, Any],
    before: Mapping[str, Any] | None,
) -> str:
    heads, cells = ["", "now"], [[name, f"{new[key]:,}"] for name, key in rows]
    if before:
        heads += ["the night before", "change"]
        for line, (_, key) in zip(cells, rows, strict=True):
            earlier = before.get(key, 0)  # an older release may have counted less
            line += [f"{earlier:,}", f"{new[key] - earlier:+,}"]
    return "\n".join([f"# {title}", "", *markdown_table(heads, cells)]) + (
        f"\nIt took {new['seconds']:.0f} s.\n"
    )
