"""kill -9 of `recsys serve`: what it started ends with it, and the next start takes over."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import children
from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import kill, log_of, running, servers_of, start_run, state_of, until
from tests.servers import free_port


@pytest.mark.long  # its first half is the last test of test_serve.py
@pytest.mark.timeout(600)
def test_a_killed_serve_leaves_no_process_and_the_next_one_takes_over(
    tmp_path: Path, prefect_home: Path
) -> None:
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    env = nights.environment(
        source, lake, f"http://127.0.0.1:{port}/api", PREFECT_HOME=str(prefect_home)
    )
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    endless = own | {"RECSYS_SOURCE": json.dumps({"uri": str(source), "query": nights.ENDLESS})}
    serve = ("serve", "--port", str(port), "--train", "never")
    with running(endless, tmp_path, *serve, stop=kill) as first:
        until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 120)
        lost = start_run(env, "nightly/daily")
        until(lambda: lake.exists(), 120)  # the night has its lock
        started = psutil.Process(first.pid).children(recursive=True)
    assert len(started) >= 2, "a server and a night"

    with running(own, tmp_path, *serve) as second:
        until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 180)
        assert not [each for each in started if each.is_running()]
        assert state_of(env, lost) == "CRASHED"
        night = start_run(env, "nightly/daily")
        until(lambda: state_of(env, night) == "COMPLETED", 180)

        third = prefect_home_in_use(own, tmp_path, free_port())
        assert third.returncode == 2
        assert f"`recsys serve` (process {second.pid}) runs already" in " ".join(
            third.stderr.split()
        )
    until(lambda: not servers_of(port), 30)
    statement = "select count(*) as n from interactions"
    rows = query_catalog(Lake(str(lake), ObjectStorage()), statement, {})
    assert rows.to_pylist() == [{"n": nights.USERS * 9}]


def prefect_home_in_use(
    env: dict[str, str], home: Path, port: int
) -> subprocess.CompletedProcess[str]:
    """Start another `recsys serve` on the same PREFECT_HOME."""
    command = [str(Path(sys.executable).parent / "recsys"), "serve", "--port", str(port)]
    return subprocess.run(
        command, env=env, cwd=home, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.slow
def test_a_killed_night_takes_its_temporary_server_with_it(
    tmp_path: Path, prefect_home: Path
) -> None:
    source, lake = tmp_path / "source.duckdb", tmp_path / "lake"
    nights.make_source(source)
    env = nights.environment(source, lake, "", PREFECT_HOME=str(prefect_home))
    env["RECSYS_SOURCE"] = json.dumps({"uri": str(source), "query": nights.ENDLESS})
    del env["PREFECT_API_URL"]
    with running(env, tmp_path, "nightly", stop=kill) as night:
        until(lambda: lake.exists() or night.poll() is not None, 120)
        servers = psutil.Process(night.pid).children(recursive=True)
    assert servers
    assert not psutil.wait_procs(servers, 40)[1]


CHILD = (
    "import signal, time, flows.children as c; {setup}; c.end_with_parent(); "
    "print('in', flush=True); time.sleep(100)"
)
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def child(setup: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(setup=setup or "pass")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "in\n"
    return process


def test_leftovers_are_ended_and_a_stranger_with_their_number_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_GRACE_SECONDS", 1.0)
    with children.parent_of_children(tmp_path):
        gentle, stubborn = child(), child(STUBBORN)
        (tmp_path / "child-1.lock").write_text(str(os.getpid()))  # of a process that is no more
        with gentle, stubborn:
            assert children.end_leftovers(tmp_path) == 2
    assert (gentle.returncode, stubborn.returncode) == (-signal.SIGTERM, -signal.SIGKILL)
    assert not list(tmp_path.glob("child-*"))


@pytest.mark.parametrize("start_time", ["", " 1"])
def test_a_leftover_file_whose_writer_is_dead_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_time: str
) -> None:
    monkeypatch.setattr(children, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(children, "_KILL_SECONDS", 0.2)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    file = tmp_path / f"child-{dead.pid}.lock"
    file.write_text(f"{dead.pid}{start_time}")
    with file.open() as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        children.end_leftovers(tmp_path)
    assert file.exists()


def test_a_process_that_was_given_the_number_of_a_leftover_is_not_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        file = tmp_path / f"child-{stranger.pid}.lock"
        file.write_text(f"{stranger.pid} 1")  # a process that started with the machine
        with file.open() as inherited:
            fcntl.flock(inherited, fcntl.LOCK_EX)
            assert children.end_leftovers(tmp_path) == 0
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_a_child_whose_parent_is_gone_already_does_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "RECSYS__CHILDREN": str(tmp_path)}
    for lock in (tmp_path / "gone", tmp_path / "free"):
        (tmp_path / "free").touch()
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(setup="pass")],
            env={**env, "RECSYS__PARENT_LOCK": str(lock)},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"")


# One thread has the write lock and would let go of it; meanwhile it makes garbage. In the garbage
# is a cursor of a connection that waits for the lock in another thread.
LOCKED = """
import sqlite3, sys, threading, time
one, other = (sqlite3.connect("a.db", timeout=20, isolation_level=None, check_same_thread=False)
              for _ in range(2))
one.execute("create table t (i integer primary key)")
one.execute("insert into t values (1)")
failed = [other.cursor()]
try:
    failed[0].execute("insert into t values (1)")
except sqlite3.IntegrityError:
    one.execute("begin immediate")
waits = threading.Thread(target=other.execute, args=("begin immediate",))
waits.start()
time.sleep(0.2)
failed.append(failed)
del failed
start = time.monotonic()
while len(garbage := [[] for _ in range(10_000)]) and time.monotonic() < start + 2:
    time.sleep(0.1)
print(time.monotonic() - start)
one.execute("commit")
waits.join()
"""


def test_garbage_makes_no_server_wait_for_a_lock_that_it_holds_itself(tmp_path: Path) -> None:
    (tmp_path / "locked.py").write_text(LOCKED)
    done = subprocess.run(
        [sys.executable, "-P", children.__file__, "locked"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert float(done.stdout) < 10
