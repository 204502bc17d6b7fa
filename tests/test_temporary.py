"""Files and folders take their place whole: a process killed at any moment leaves one or the other.

A child process counts its steps on the file system by an audit hook, and kills itself with SIGKILL
before the nth: so every moment of it has its turn.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import temporary
from recsys.temporary import replace_file, replace_folder, temporary_folder

CHILD = """
import os, sys
from pathlib import Path
from recsys import temporary

target, act, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps = 0

def step(event, arguments):
    global steps
    steps += event in STEPS
    if event in STEPS and steps > last:
        os.kill(os.getpid(), 9)

def not_here(*_):
    raise OSError(22, "this file system can't exchange")

STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "ctypes.dlsym"}
sys.addaudithook(step)
if act == "file":
    with temporary.replace_file(target) as new:
        new.write_text("new")
else:
    if act == "moved":
        temporary._exchange = not_here
    with temporary.replace_folder(target) as new:
        for name in ("a", "b"):
            (new / name).write_text("new")
"""


def content(target: Path) -> dict[str, str]:
    """The text of a file, or of each file of a folder; nothing where there is none."""
    files = [target] if target.is_file() else sorted(target.glob("*"))
    return {file.name: file.read_text() for file in files}


def write(target: Path, act: str) -> None:
    if act == "file":
        target.write_text("previous")
    else:
        target.mkdir()
        for name in ("a", "b", "c"):
            (target / name).write_text("previous")


def replace(target: Path, act: str, steps: int) -> int:
    """Replace the target in a process that is killed after so many steps; its exit code."""
    command = [sys.executable, "-c", CHILD, str(target), act, str(steps)]
    return subprocess.run(command, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("act", ["file", "folder", "moved"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_kill_at_any_step_leaves_the_previous_content_or_the_new_one(
    tmp_path: Path, act: str, is_there: bool
) -> None:
    names = ["target"] if act == "file" else ["a", "b"]
    new = dict.fromkeys(names, "new")
    previous = dict.fromkeys([*names, *(["c"] if act != "file" else [])], "previous")
    previous = previous if is_there else {}
    seen = []
    for steps in range(60):
        target = tmp_path / str(steps) / "target"
        target.parent.mkdir()
        if is_there:
            write(target, act)
        code = replace(target, act, steps)
        after = content(target)
        seen.append(after)
        if act != "moved":
            assert after in (previous, new), steps
        # The next writer, of whatever is beside it, removes what a killed one left.
        with replace_file(target.with_name("other")) as other:
            other.write_text("x")
        assert content(target) in (previous, new), steps
        rest = {path.name for path in target.parent.iterdir()} - {"target"}
        assert rest == {"other"}, steps
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert seen[0] == previous
    assert seen[-1] == new
    assert seen.count(new) > 1, "killed after the step that counts, too"


def test_a_writer_that_raises_leaves_everything_as_it_was(tmp_path: Path) -> None:
    for act, writer in (("file", replace_file), ("folder", replace_folder)):
        target = tmp_path / act / "target"
        target.parent.mkdir()
        write(target, act)
        previous = content(target)
        with pytest.raises(FileNotFoundError), writer(target) as new:
            write_half(new if act == "file" else new / "a")
        assert content(target) == previous
        assert list(target.parent.iterdir()) == [target]


def write_half(path: Path) -> None:
    path.write_text("half")
    (path.parent / "nowhere").read_text()


def test_two_writers_side_by_side_do_not_remove_each_other(tmp_path: Path) -> None:
    with replace_file(tmp_path / "one") as one:
        one.write_text("1")
        with replace_folder(tmp_path / "two") as two:
            (two / "2").write_text("2")
            assert one.exists()
        assert one.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_a_folder_that_is_given_holds_nothing_and_keeps_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with replace_folder(tmp_path / "target") as new:
        assert list(new.iterdir()) == []
    rights = {(tmp_path / name).stat().st_mode for name in ("usual", "target")}
    assert len(rights) == 1
    with temporary_folder() as folder:
        assert list(folder.iterdir()) == [], "what it is locked by would travel with its content"


def test_folders_that_are_not_ours_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "recsys-experiments").mkdir()
    (tmp_path / f"{temporary._PREFIX}file").write_text("a file of this name")
    before = set(tmp_path.iterdir())
    with temporary_folder() as folder:
        assert set(tmp_path.iterdir()) == {*before, folder}
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [OSError(errno.EIO, "failed"), KeyboardInterrupt()])
@pytest.mark.parametrize("is_restored", [True, False])
def test_a_new_folder_that_cannot_take_its_place_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, is_restored: bool
) -> None:
    target = tmp_path / "target"
    write(target, "moved")
    previous = content(target)
    rename = Path.rename

    def fail_on_the_way_to_target(path: Path, to: Path) -> Path:
        if to == target and path.parent.name != temporary._PREVIOUS:
            raise error
        if to == target and not is_restored:
            raise OSError(errno.EIO, "failed")
        return rename(path, to)

    def not_here(*_: Path) -> None:
        raise OSError(errno.EINVAL, "this file system can't exchange")

    monkeypatch.setattr(temporary, "_exchange", not_here)
    monkeypatch.setattr(Path, "rename", fail_on_the_way_to_target)
    with pytest.raises(type(error)), replace_folder(target) as new:
        (new / "a").write_text("new")
    monkeypatch.undo()
    assert content(target) == (previous if is_restored else {})
    with replace_file(tmp_path / "other") as other:  # the next writer puts it back
        other.write_text("x")
    assert content(target) == previous
    assert {path.name for path in tmp_path.iterdir()} == {"target", "other"}


@pytest.mark.parametrize("prefix", [temporary._PREFIX, temporary._BESIDE])
def test_the_sweep_follows_no_link_out_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    write(home, "folder")
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(shared))
    leftover = shared / f"{prefix}x"
    leftover.mkdir(parents=True)
    (leftover / temporary._PREVIOUS).symlink_to(home)
    before = content(home)
    with temporary_folder(), replace_file(shared / "target") as new:
        new.write_text("x")
    assert content(home) == before
    assert {path.name for path in shared.iterdir()} == {"target"}


def test_a_temporary_folder_puts_nothing_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    write_previous(tmp_path / f"{temporary._PREFIX}x")
    with temporary_folder():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", [temporary._PREFIX, temporary._BESIDE])
def test_the_sweep_leaves_a_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    write_previous(tmp_path / f"{prefix}x")
    monkeypatch.setattr(temporary.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with temporary_folder(), replace_file(tmp_path / "target") as new:
        new.write_text("x")
    assert {path.name for path in tmp_path.iterdir()} == {f"{prefix}x", "target"}
    assert (tmp_path / f"{prefix}x" / temporary._PREVIOUS / "a").exists()


def write_previous(leftover: Path) -> None:
    """Make what a killed writer leaves that had moved the folder `a` aside."""
    (leftover / temporary._PREVIOUS / "a").mkdir(parents=True)
