"""The four answers at the top of the page, and the worries behind the last one, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recsys.catalog.report.words import count, day, first_line, percent, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recsys.catalog.report.figures import Figures, ModelFigures, Row

Tone = Literal["good", "plain", "warn", "bad"]

# Where a figure begins to be worth a sentence.
_POPULAR_SHARE = 0.2
_WITHOUT_SHARE = 0.01
_FEWER_USERS = 0.1
_REJECTED_SHARE = 0.01
_KEPT_SHARE = 0.3
_TOP_SHARE = 0.5
_SHOWN = 0.05
_MODEL_AGE = 14.0
"""Days."""


@dataclass(frozen=True)
class Headline:
    """An answer.

    Attributes:
        question: that it answers.
        text: the answer in a few words.
        detail: a sentence with the figures.
        tone: good, plain, warn or bad.
    """

    question: str
    text: str
    detail: str
    tone: Tone = "plain"


def headlines(figures: Figures) -> list[Headline]:
    """Return the four answers at the top of the page."""
    return [_served(figures), _better(figures), _changed(figures), _worry(figures)]


def _served(figures: Figures) -> Headline:
    question, night = "Who was served?", figures.night
    if night is None:
        text = f"No lists are served for {day(figures.run_date)}"
        return Headline(question, text, "The day has no edition of lists that stands.", "bad")
    users, popular = night["users"] or 0, night["popular_users"] or 0
    parts = [f"{count(users - popular)} by the model, {count(popular)} by popularity alone"]
    if night["without_list"]:
        parts.append(f"{count(night['without_list'])} without a list")
    return Headline(question, plural(users, "user"), "; ".join(parts) + ".", "plain")


def _better(figures: Figures) -> Headline:
    question = "Better than popularity?"
    if figures.night and figures.night["model_id"] is None:
        detail = "No model serves yet: every list is the list of popular items."
        return Headline(question, "It is popularity", detail, "warn")
    if figures.live and figures.live.week["lead"] is not None:
        return _better_live(question, figures.live.week)
    model = figures.model
    popularity = model.baseline("popularity") if model else None
    if model is None or popularity is None:
        return Headline(question, "Not known", "The model that served has no figures.", "plain")
    ours, theirs = model.own["ndcg"], popularity["ndcg"]
    detail = (
        f"On items held out of training, NDCG@10 is {ours:.4f}; popularity has {theirs:.4f}. "
        "There are no live figures yet."
    )
    if ours <= theirs:
        return Headline(question, "No, not on held-out items", detail, "bad")
    times = f"{ours / theirs:.1f} times as good" if theirs else "popularity finds nothing"
    return Headline(question, f"Yes: {times} on held-out items", detail, "good")


def _better_live(question: str, week: Row) -> Headline:
    """Answer from what users did; a lead whose 95 % interval holds 0 may be chance."""
    margin = 1.96 * (week["lead_error"] or 0.0)
    low, high = week["lead"] - margin, week["lead"] + margin
    detail = (
        f"Over {plural(week['nights'], 'night')}, {percent(week['served'])} of active users took "
        f"one of their first {week['k']} items; with popularity's lists it would be "
        f"{percent(week['popularity'])} (difference {100 * low:+.1f} to {100 * high:+.1f} points)."
    )
    if low > 0:
        return Headline(question, "Yes, on what users did", detail, "good")
    if high < 0:
        return Headline(question, "No, users take popular items more", detail, "bad")
    return Headline(question, "Not certain yet", detail, "warn")


def _changed(figures: Figures) -> Headline:
    question, changes = "What changed since the night before?", figures.changes
    if changes is None:
        detail = "There are no lists of an earlier day to compare with."
        return Headline(question, "These are the first lists", detail, "plain")
    kept = kept_share(changes)
    detail = (
        f"Against {day(changes['before'])}: {plural(changes['new_users'], 'new user')}, "
        f"{count(changes['gone_users'])} gone; {count(changes['same_users'])} of "
        f"{plural(changes['users'], 'list')} are the same. {_model_change(figures)}"
    )
    if kept is None:
        return Headline(question, "Other users than before", detail, "plain")
    return Headline(question, f"{percent(1 - kept)} of the entries are new", detail, "plain")


def kept_share(changes: Row | None) -> float | None:
    """Return the share of the entries that were in the user's list of the night before."""
    if not changes or not changes["entries"]:
        return None
    return float(changes["kept_entries"] / changes["entries"])


def _model_change(figures: Figures) -> str:
    if len(figures.nights) > 1:
        before, now = (night["model_id"] for night in figures.nights[-2:])
        if before != now:
            return f"Another model serves: {now or 'popularity'} after {before or 'popularity'}."
    return "The same model serves."


def _worry(figures: Figures) -> Headline:
    question = "One thing to worry about"
    for headline in worries(figures):
        return headline
    exposure = figures.exposure
    detail = "No run failed, no check failed, and no figure is beyond its limit."
    if exposure:
        detail += f" The ten most shown items take {percent(exposure.top_share)} of all places."
    return Headline(question, "Nothing stands out tonight", detail, "good")


def worries(figures: Figures) -> Iterator[Headline]:
    """Yield what is beyond a limit, the worst first."""
    question = "One thing to worry about"
    for tone, text, detail in (
        *_of_runs(figures),
        *_of_model(figures.model),
        *_of_checks(figures),
        *_of_drift(figures),
        *_of_night(figures),
        *_of_lists(figures),
    ):
        yield Headline(question, text, detail, tone)


Finding = tuple[Tone, str, str]


def _of_runs(figures: Figures) -> Iterator[Finding]:
    if figures.night is None:
        yield "bad", "Nobody is served", "Find out why the night made no lists, and run it again."
    ended = [run for run in figures.runs if run["status"] != "running"]
    if ended and ended[0]["status"] in ("refused", "failed", "crashed"):
        run = ended[0]
        yield "bad", f"The last run, {run['flow']}, {run['status']}", first_line(run["error"])
    for run in ended[:1]:
        if run["status"] == "completed" and run["error"]:
            yield "warn", f"The last run, {run['flow']}, did not do all", first_line(run["error"])


def _of_model(model: ModelFigures | None) -> Iterator[Finding]:
    if model is None:
        return
    best = model.systems[0]
    if best["system"] != "model":
        yield (
            "bad",
            f"{best['system']} is better than the model",
            f"On the same held-out items its NDCG@10 is {best['ndcg']:.4f}, the model's "
            f"{model.own['ndcg']:.4f}.",
        )


def _of_drift(figures: Figures) -> Iterator[Finding]:
    for row in figures.drift[:1]:
        if row["verdict"] in ("retrain", "warn"):
            limit = row["retrain_at" if row["verdict"] == "retrain" else "warn_at"]
            yield (
                "warn",
                f"The data drifted: {row['measure']}",
                f"The figure is {row['result']:.2f}, and the limit {limit:.2f}.",
            )


def _of_checks(figures: Figures) -> Iterator[Finding]:
    failed = [check for check in figures.checks if check["status"] != "passed"]
    if failed:
        first = failed[0]
        others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        yield "bad", f"A check {first['status']}{others}", f"The rule: {first['rule']}."
    if figures.batches:
        newest = figures.batches[-1]
        share = newest["quarantined"] / newest["rows_in"] if newest["rows_in"] else 0.0
        if share > _REJECTED_SHARE:
            yield (
                "warn",
                f"{percent(share)} of the newest rows were rejected",
                f"{plural(newest['quarantined'], 'row')} of {day(newest['day'])} lie in "
                "quarantine, with their reasons.",
            )


def _of_night(figures: Figures) -> Iterator[Finding]:
    night = figures.night
    if night is None or not night["users"]:
        return
    users = night["users"]
    before = figures.nights[-2]["users"] if len(figures.nights) > 1 else None
    if before and users < before * (1 - _FEWER_USERS):
        yield (
            "bad",
            f"{percent(1 - users / before)} fewer users than the night before",
            f"{count(users)} were served, {count(before)} before.",
        )
    if (night["without_list"] or 0) > users * _WITHOUT_SHARE:
        yield (
            "warn",
            f"{plural(night['without_list'], 'user')} got no list",
            "No item is left for them: they have had all that may be listed.",
        )
    popular = night["popular_users"] or 0
    if night["model_id"] and popular > users * _POPULAR_SHARE:
        yield (
            "warn",
            f"{percent(popular / users)} of the users get popular items alone",
            "The model knows none of their items; train again.",
        )
    if (night["model_age_days"] or 0) > _MODEL_AGE:
        yield (
            "warn",
            f"The model is {night['model_age_days']:.0f} days old",
            "It lists no item that is newer than itself; train again.",
        )


def _of_lists(figures: Figures) -> Iterator[Finding]:
    changes, exposure = figures.changes, figures.exposure
    kept = kept_share(changes)
    same_model = len(figures.nights) < 2 or len({n["model_id"] for n in figures.nights[-2:]}) == 1
    if kept is not None and kept < _KEPT_SHARE and same_model:
        yield (
            "warn",
            f"{percent(1 - kept)} of the entries changed in a night",
            "The same model made both lists; look at what came in.",
        )
    if exposure and exposure.eligible and exposure.shown / exposure.eligible < _SHOWN:
        yield (
            "warn",
            f"{percent(1 - exposure.shown / exposure.eligible)} of the items are in no list",
            f"{count(exposure.shown)} of {count(exposure.eligible)} that may be listed are shown.",
        )
    if exposure and exposure.top_share > _TOP_SHARE:
        yield (
            "warn",
            f"Ten items take {percent(exposure.top_share)} of all places",
            f"The most shown one is in {count(exposure.top[0]['lists'])} lists.",
        )
