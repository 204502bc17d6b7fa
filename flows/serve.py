"""Serve the deployments from this machine, with a Prefect server of our own when none is set."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from prefect.runner import Runner

from flows.alerts import crash_lost_runs
from flows.deployments import Served, describe, keep_what_was_set, read_deployments
from flows.server import prefect_server
from recsys.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

_NIGHT = "nightly/daily"
_HEARTBEAT = 30
"""Seconds between two heartbeats of a run; where four are missing, automations.yaml ends it."""


def serve_deployments(
    cron: str | None, timezone: str | None, train: str | None, port: int, say: Callable[[str], None]
) -> None:
    """Serve the deployments of prefect.yaml until stopped.

    One run at a time, since the lake has a single writer; a training may run beside it.

    Args:
        cron: when nightly runs, e.g. ``"0 2 * * *"``; as the deployment says when not given.
        timezone: of the schedule and of run dates, e.g. ``"Europe/Berlin"``; the settings' own
            when not given.
        train: when a night trains: ``train`` of `nightly_flow`; its default when not given.
        port: port of the Prefect server, where one has to be started.
        say: told where the server is, and when each deployment runs.

    Raises:
        ConfigurationError: the schedule is not valid, no source is configured, the port is taken,
            or a work pool runs the deployments.
    """
    new_schedule = cron is not None or timezone is not None
    if timezone is not None:
        timezone = Settings(timezone=timezone).timezone
        os.environ["RECSYS_TIMEZONE"] = timezone  # the processes that run the flows read it
    served = read_deployments(timezone or Settings().timezone, {_NIGHT: cron} if cron else {})
    if train is not None:
        served[_NIGHT].deployment.parameters = {"train": train}
    Settings().required_source()
    with prefect_server(port, served, say):
        for name, each in served.items():
            keep_what_was_set(each.deployment, new_schedule=new_schedule and name == _NIGHT)
        crash_lost_runs()
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_serve([*served.values()], say))


class _Runner(Runner):
    """A runner of runs one after the other.

    Args:
        end: ends all runners of this process; Prefect's own handler of SIGTERM would end this one.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__(limit=1, pause_on_shutdown=False, heartbeat_seconds=_HEARTBEAT)
        self._end = end

    def handle_sigterm(self, *_: object) -> None:
        """End all runners."""
        self._end()


async def _serve(served: list[Served], say: Callable[[str], None]) -> None:
    """Run a runner for every queue.

    Schedules are not paused at the end: a night that is due while nobody serves runs late, rather
    than never.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: end())
    runners = []
    queue = attrgetter("queue")
    for _, group in groupby(sorted(served, key=queue), queue):
        runner = _Runner(end)
        for each in group:
            await runner.aadd_deployment(each.deployment)
        runners.append(runner)
    say("serving, until you stop it:")
    for each in served:
        say(f"  {describe(each.deployment)}")
    running: asyncio.Future[Any] = asyncio.gather(*(runner.start() for runner in runners))
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        await asyncio.gather(*(runner.cancel_all() for runner in runners if runner.started))
        running.cancel()
    stopped.cancel()
    await running
