"""What a person is told at the end of a night. All of it is read from the catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recsys.catalog.query import query_catalog
from recsys.terminal import render_table
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.lake.tables import Lake

_SAMPLE_USERS, _HISTORY_ITEMS, _LIST_ITEMS = 3, 5, 10
_NEWEST_NIGHT = (
    "select outcome from runs where flow = 'nightly' and status = 'completed' "
    "order by started desc limit 1"
)


def night_summary(lake: Lake) -> str:
    """Return three lines on the newest night: what it ingested, trained and recommended.

    Raises:
        LakeError: the lake has no catalog, or it can't be read.
    """
    rows = query_catalog(lake, _NEWEST_NIGHT).to_pylist()
    if not rows:
        return "no night has run yet"
    outcome = json.loads(rows[0]["outcome"])
    if "skipped" in outcome:
        return f"skipped: {outcome['skipped']}"
    ingest, lists = outcome["ingest"], outcome["recommend"]
    verdict = training_summary(outcome)
    return (
        f"ingest: {ingest['status']}, {ingest['accepted']:,} new interactions "
        f"({ingest['duplicates']:,} already in the lake, {ingest['quarantined']:,} quarantined)\n"
        f"train: {verdict}\n"
        f"recommend: {list_summary(lists)}"
        f"{live_summary(outcome.get('live_metrics', {}))}"
        f"{drift_summary(outcome.get('drift', {}))}"
        f"{''.join(sink_summaries(outcome))}"
    )


def training_summary(outcome: dict[str, Any]) -> str:
    """Return what a night says of its training: its result, why it trained or why it did not."""
    why = outcome["policy"]["why"]
    training = outcome.get("train")
    if training is None:
        return f"not trained: {why}"
    if problem := _problem(training):
        return f"failed: {problem} (trained because {why})"
    advice = f". {training['advice']}" if training.get("advice") else ""
    return f"{training['status']}, {training['why']} (trained because {why}){advice}"


def _problem(step: Mapping[str, Any]) -> Any:
    """Return what went wrong in an optional step; nothing where it went well."""
    return step.get("refused") or step.get("failed")


def live_summary(live: Mapping[str, Any]) -> str:
    """Return a line on how the newest judged lists did, or none where nothing could be judged."""
    if problem := _problem(live):
        return f"\nlive: failed: {problem}"
    if not live.get("users"):
        return ""
    popularity = live["popularity_hit_rate"]
    beside = "" if popularity is None else f"; of popularity's, {popularity:.1%}"
    return (
        f"\nlive: of {live['users']:,} users who took something new on the day of the lists of "
        f"{live['run_date']}, {live['hit_rate']:.1%} took one of their first {live['k']}{beside}"
    )


def drift_summary(drift: Mapping[str, Any]) -> str:
    """Return a line on data that drifted; none where they did not, or where nothing is known."""
    if problem := _problem(drift):
        return f"\ndrift: failed: {problem}"
    return f"\ndrift: {drift['why']}" if drift.get("why") else ""


def sink_summaries(outcome: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line on each sink that lists were delivered to."""
    for step, result in outcome.items():
        if not step.startswith("deliver "):
            continue
        if problem := sink_problem(step, result):
            yield f"\n{problem}"
        else:
            days = ", ".join(map(str, result["delivered"])) or "nothing new"
            yield f"\n{step.replace('deliver', 'delivered to')}: {days}, {result['rows']:,} rows"


def sink_problem(step: str, result: Mapping[str, Any]) -> str | None:
    """Return what went wrong with a sink; None where that went well, and of another step."""
    problem = _problem(result) if step.startswith("deliver ") else None
    return f"not {step.replace('deliver', 'delivered to')}: {problem}" if problem else None


def list_summary(lists: Mapping[str, Any]) -> str:
    """Return what `runs.outcome` says of a night's lists, in a sentence.

    Args:
        lists: a `RecommendResult` as a dictionary, or as the JSON of it.
    """
    if lists["status"] == "stands":
        return f"{lists['status']}, {lists['why']}"
    why = f" ({lists['why']})" if lists["why"] else ""
    text = (
        f"{lists['status']}, edition {lists['edition']} of {lists['run_date']}{why}: "
        f"{lists['rows']:,} rows for {lists['users']:,} users, "
        f"{lists['popular_users']:,} of them get popular items"
    )
    if lists["without_list"]:
        examples = ", ".join(map(str, lists["users_without_list"]))
        named = f", for example {examples}" if examples else ""
        text += f"; {lists['without_list']:,} users get no list, because no item is left{named}"
    text += _hidden_items(lists)
    bound = f"{lists['data_until']}" + (
        f", ingested before {lists['as_of']}" * bool(lists["as_of"])
    )
    return f"{text}. Read: interactions version {lists['interactions_version']}, before {bound}"


def _hidden_items(lists: Mapping[str, Any]) -> str:
    """Say how many items with interactions no list could hold, and why; nothing where all could."""
    reasons = {
        "are missing in `items`": lists.get("items_not_in_items", 0),
        "are not marked eligible there": lists.get("items_not_eligible", 0),
    }
    told = " and ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    return f"; not shown: of the items with interactions, {told}" if told else ""


def sample_lists(lake: Lake) -> Iterator[str]:
    """Yield tables to print: the history and the list of a few users, then the champion's metrics.

    Raises:
        LakeError: the lake has no catalog, or it can't be read.
    """
    users = query_catalog(lake, load("queries/sample_users"), {"count": _SAMPLE_USERS})
    for user in users["user_id"].to_pylist():
        history = query_catalog(
            lake, load("queries/user_history"), {"user_id": user, "count": _HISTORY_ITEMS}
        )
        items = query_catalog(lake, load("queries/user_list"), {"user_id": user})
        yield render_table(history.select(["timestamp", "title"]), f"User {user} watched last")
        yield render_table(
            items.slice(0, _LIST_ITEMS).select(["rank", "title", "score"]),
            "and is recommended",
        )
    metrics = query_catalog(lake, load("queries/champion_metrics"))
    yield render_table(metrics, "On the last item of every user, held out of training")
