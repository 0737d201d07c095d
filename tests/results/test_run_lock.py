"""Two commands never work in one place, and one that was killed keeps nobody out."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mulo_cli.errors import OutputError
from mulo_cli.results import lock_file, lock_owner, run_lock
from mulo_cli.results.lock_file import LOCK, locked_names
from mulo_cli.results.lock_owner import Owner, age, from_json, this_process, to_json
from mulo_cli.results.run_directory import RunDirectory
from mulo_cli.results.run_lock import locked, locked_file, refuse_if_locked
from mulo_cli.results.turns import in_turn

HOLD = """
import sys, time
from pathlib import Path
from mulo_cli.results.run_lock import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""

TAKE_TURNS = """
import sys, time
from pathlib import Path
from mulo_cli.errors import OutputError
from mulo_cli.results.run_lock import locked
folder, turns, deadline = Path(sys.argv[1]), 0, time.monotonic() + 30
while turns < 20 and time.monotonic() < deadline:
    try:
        with locked(folder, lambda sentence: None):
            alone = folder / "somebody is here"
            alone.touch(exist_ok=False)
            time.sleep(0.002)
            alone.unlink()
            turns += 1
    except OutputError:
        time.sleep(0.001)
print(turns)
"""


class Told(list):
    """The sentences that a user was told."""

    __call__ = list.append


def script(text: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def hold(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a folder's lock, and wait until it does."""
    process = script(HOLD, folder)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line == "held\n" for line in lines)
    return process


def left_behind(folder: Path, *, name: str = LOCK, silent: bool = False, **changes) -> Owner:
    """Write the lock of a process that was killed, like this one but for some changes.

    Args:
        folder: where.
        name: of the lock.
        silent: whether that was long ago.
        changes: fields of the owner.
    """
    owner = dataclasses.replace(this_process(), **changes)
    (folder / name).write_bytes(to_json(owner))
    if silent:
        os.utime(folder / name, (time.time() - 7200,) * 2)
    return owner


@pytest.fixture
def no_kernel_locks(monkeypatch):
    """Have the content alone decide, as on a file system without locks."""
    monkeypatch.setattr(lock_file, "fcntl", None)
    monkeypatch.setattr(run_lock, "SETTLING", 0.01)


@pytest.fixture
def impatient(monkeypatch):
    """Watch another machine's lock for a moment only."""
    monkeypatch.setattr(run_lock, "SILENCE", 0.3)
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.05)


def test_nothing_is_left_of_a_lock_and_of_folders_that_stayed_empty(tmp_path):
    with locked(tmp_path / "a" / "b", Told()):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a", Told()):
        (tmp_path / "a" / "mine").touch()
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["mine"]


def test_nothing_is_left_of_a_lock_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "a", Told()):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_second_command_is_refused_and_told_who_is_there_and_since_when(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(OutputError) as caught, locked(tmp_path, Told()):
            pass
        for word in (str(tmp_path), f"process {process.pid} on ", "`-c", "begun ", " s ago"):
            assert word in caught.value.message
        assert "wait for it" in caught.value.hint
        assert "delete" not in caught.value.hint
        assert (tmp_path / LOCK).exists(), "who is refused takes nothing away"
    finally:
        process.terminate()
        process.wait()


def test_a_lock_is_not_given_twice_in_one_process_either(tmp_path):
    with (
        locked(tmp_path, Told()),
        pytest.raises(OutputError, match=f"process {os.getpid()} "),
        locked(tmp_path, Told()),
    ):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_and_the_user_is_told(tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / LOCK).read_bytes()
    told = Told()
    with locked(tmp_path, told):
        owner = from_json((tmp_path / LOCK).read_bytes())
        assert owner is not None
        assert owner.pid == os.getpid()
    (sentence,) = told
    assert f"process {process.pid} " in sentence
    assert "gone" in sentence
    assert not (tmp_path / LOCK).exists()


@pytest.mark.usefixtures("no_kernel_locks")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"started": "1"}, "its number is another one's now"),
        ({"boot": "another", "silent": True}, "started anew"),
        ({"pid": 2**22 + 1}, "that process is gone"),
    ],
)
def test_without_kernel_locks_a_process_of_this_machine_that_is_gone_is_recognised(
    tmp_path, changes, said
):
    left_behind(tmp_path, **changes)
    told = Told()
    with locked(tmp_path, told):
        pass
    assert said in told[0]


@pytest.mark.usefixtures("no_kernel_locks")
@pytest.mark.parametrize("changes", [{}, {"host": "elsewhere"}])
def test_without_kernel_locks_whoever_may_be_alive_is_left_alone(tmp_path, changes):
    left_behind(tmp_path, since=time.time() - 7300, silent=True, **changes)
    with pytest.raises(OutputError) as caught, locked(tmp_path, Told()):
        pass
    assert "begun 2 h 1 min ago" in caught.value.message
    assert "last sign of life was 2 h 0 min ago" in caught.value.message
    assert f"delete {str(tmp_path / LOCK)!r}" in caught.value.hint
    assert from_json((tmp_path / LOCK).read_bytes()) is not None


@pytest.mark.usefixtures("no_kernel_locks")
def test_without_kernel_locks_another_machine_of_our_name_is_alive_while_it_shows_signs(tmp_path):
    owner = left_behind(tmp_path, boot="another", pid=2**22 + 1)
    with pytest.raises(OutputError, match="is in use"), locked(tmp_path, Told()):
        pass
    assert from_json((tmp_path / LOCK).read_bytes()) == owner


@pytest.mark.usefixtures("no_kernel_locks")
def test_without_kernel_locks_the_last_of_two_takers_has_it(tmp_path, monkeypatch):
    other = dataclasses.replace(this_process(), pid=1)
    monkeypatch.setattr(
        time, "sleep", lambda seconds: (tmp_path / LOCK).write_bytes(to_json(other))
    )
    with pytest.raises(OutputError, match="process 1 "), locked(tmp_path, Told()):
        pass
    assert from_json((tmp_path / LOCK).read_bytes()) == other


ANOTHER_MACHINE = pytest.mark.parametrize(
    "changes", [{"host": "elsewhere"}, {"boot": "another"}], ids=["another name", "our name"]
)


@pytest.mark.usefixtures("impatient")
@ANOTHER_MACHINE
def test_another_machines_lock_is_taken_over_when_it_shows_no_sign_of_life(tmp_path, changes):
    owner = left_behind(tmp_path, **changes)
    told = Told()
    with locked(tmp_path, told):
        pass
    assert "waiting" in told[0]
    assert "no sign of life" in told[1]
    assert owner.host in told[1]


@contextlib.contextmanager
def alive(path: Path):
    """Touch a file again and again, as an owner whose kernel lock is not seen here does."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.usefixtures("impatient")
@ANOTHER_MACHINE
def test_another_machines_lock_that_shows_signs_of_life_is_left_alone(tmp_path, changes):
    owner = left_behind(tmp_path, **changes)
    with (
        alive(tmp_path / LOCK),
        pytest.raises(OutputError, match=owner.host),
        locked(tmp_path, Told()),
    ):
        pass
    assert from_json((tmp_path / LOCK).read_bytes()) == owner


@pytest.mark.usefixtures("impatient")
def test_who_was_suspended_and_taken_over_leaves_the_followers_lock_alone(tmp_path):
    lock = tmp_path / LOCK
    with locked(tmp_path, Told()):
        follower = dataclasses.replace(this_process(), host="elsewhere")
        lock.write_bytes(to_json(follower))
        os.utime(lock, (0, 0))
        time.sleep(0.2)
        assert lock.stat().st_mtime == 0, "our signs of life are not its"
    assert from_json(lock.read_bytes()) == follower


def test_who_was_taken_over_leaves_a_lock_alone_that_was_made_since(tmp_path):
    lock = tmp_path / LOCK
    with locked(tmp_path, Told()):
        lock.unlink()
        lock.touch()
    assert lock.exists()


@pytest.mark.parametrize("argument", ["\udcff", "x" * 2**17], ids=["no text", "long"])
def test_a_lock_goes_again_whatever_the_command_was_called_with(tmp_path, monkeypatch, argument):
    monkeypatch.setattr(sys, "argv", ["mulo", argument])
    with locked(tmp_path / "a", Told()):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("impatient")
def test_who_holds_a_lock_shows_signs_of_life(tmp_path):
    with locked(tmp_path, Told()):
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_many_takers_of_a_lock_that_was_left_behind_are_never_there_together(tmp_path):
    left_behind(tmp_path, pid=2**22 + 1)
    takers = [script(TAKE_TURNS, tmp_path) for _ in range(3)]
    turns = [int(taker.communicate(timeout=60)[0]) for taker in takers]
    assert [taker.returncode for taker in takers] == [0, 0, 0]
    assert turns == [20, 20, 20]
    assert not list(tmp_path.iterdir())


def owned(since: bytes) -> bytes:
    """Return what names an owner since a number that nobody would write."""
    owner = dataclasses.replace(this_process(), pid=1, since=12345.5)
    assert b'"pid": 1,' in to_json(owner)
    return to_json(owner).replace(b"12345.5", since)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x00" * 4096, b'{"host": "h', b"[]", b"x" * 2**20, b'{"host": 3, "pid": "x"}'),
        *(owned(since) for since in (b"1e999", b"-1e999", b"-1e300", b"NaN", b"Infinity")),
        owned(b"0").replace(b'"pid": 1', b'"pid": 1' + b"0" * 4000),
    ],
    ids=[
        *("empty", "zeros", "torn", "list", "large", "wrong types"),
        *("inf", "-inf", "long ago", "nan", "Infinity", "large pid"),
    ],
)
def test_a_lock_with_no_name_in_it_is_taken(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with locked(tmp_path, Told()):
        assert from_json((tmp_path / LOCK).read_bytes()) is not None


def test_a_terminal_does_not_obey_what_stands_in_a_lock(tmp_path):
    left_behind(tmp_path, pid=2**22 + 1, command="\x1b[2J" + "x" * 1000)
    told = Told()
    with locked(tmp_path, told):
        pass
    assert told[0].isprintable()
    assert len(told[0]) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_something_else_with_the_locks_name_is_an_error(tmp_path, make):
    make(tmp_path / LOCK)
    with pytest.raises(OutputError, match="cannot write"), locked(tmp_path, Told()):
        pass


def test_a_file_has_one_lock_whatever_name_leads_to_it(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "link").symlink_to("rows.jsonl")
    with (
        locked_file(tmp_path / "rows.jsonl", Told()),
        locked_file(tmp_path / "other.jsonl", Told()),
        pytest.raises(OutputError, match="link"),
        locked_file(tmp_path / "link", Told()),
    ):
        pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "rows.jsonl"]


def test_a_folder_that_was_made_for_a_lock_goes_again_if_no_file_was_made(tmp_path):
    with locked_file(tmp_path / "a" / "rows.jsonl", Told()):
        assert (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())


# --- Asking only ----------------------------------------------------------------------------------

ROWS, ROWS_LOCK = "rows.jsonl", f".rows.jsonl{LOCK}"


def test_whether_a_file_is_in_use_can_be_asked_and_nothing_changes(tmp_path):
    told = Told()
    refuse_if_locked(tmp_path / "nowhere" / ROWS, told)
    assert not list(tmp_path.iterdir()), "no lock is made"
    with (
        locked_file(tmp_path / ROWS, told),
        pytest.raises(OutputError, match=f"process {os.getpid()} "),
    ):
        refuse_if_locked(tmp_path / ROWS, told)
    owner = left_behind(tmp_path, name=ROWS_LOCK, pid=2**22 + 1)
    refuse_if_locked(tmp_path / ROWS, told)
    assert from_json((tmp_path / ROWS_LOCK).read_bytes()) == owner
    assert told == []
    (tmp_path / ROWS_LOCK).unlink()
    os.mkfifo(tmp_path / ROWS_LOCK)
    refuse_if_locked(tmp_path / ROWS, told)


@pytest.mark.usefixtures("impatient")
@ANOTHER_MACHINE
def test_who_asks_about_another_machines_lock_waits_for_a_sign_of_life(tmp_path, changes):
    told = Told()
    left_behind(tmp_path, name=ROWS_LOCK, **changes)
    with alive(tmp_path / ROWS_LOCK), pytest.raises(OutputError, match="in use"):
        refuse_if_locked(tmp_path / ROWS, told)
    left_behind(tmp_path, name=ROWS_LOCK, **changes)
    refuse_if_locked(tmp_path / ROWS, told)
    assert [one.count("waiting") for one in told] == [1, 1]
    refuse_if_locked(tmp_path / ROWS, told)
    assert len(told) == 2, "it has been silent for long enough by now"


@pytest.mark.usefixtures("no_kernel_locks")
def test_without_kernel_locks_who_asks_is_told_by_the_content(tmp_path):
    left_behind(tmp_path, name=ROWS_LOCK, pid=2**22 + 1)
    refuse_if_locked(tmp_path / ROWS, Told())
    left_behind(tmp_path, name=ROWS_LOCK)
    with pytest.raises(OutputError, match="in use"):
        refuse_if_locked(tmp_path / ROWS, Told())


def test_the_locks_in_a_folder_name_its_files(tmp_path):
    for name in (LOCK, ROWS_LOCK, "..x" + LOCK, "rows" + LOCK, ".rows"):
        (tmp_path / name).touch()
    assert sorted(locked_names(tmp_path)) == [".x", ROWS]
    assert locked_names(tmp_path / "nowhere") == []


# --------------------------------------------------------------------------------------------------


def test_what_is_no_file_needs_no_lock():
    for _ in range(2):
        with locked_file(Path(os.devnull), Told()), locked_file(Path(os.devnull), Told()):
            pass
    assert not Path("/dev/.null" + LOCK).exists()


def test_a_folder_with_nothing_but_a_lock_may_become_a_run(tmp_path):
    left_behind(tmp_path, pid=2**22 + 1)
    (tmp_path / ".environment.json.0123abcd.draft").touch()  # a kill may leave that, too
    RunDirectory(tmp_path).refuse_foreign()
    (tmp_path / ".thesis.draft").touch()
    with pytest.raises(OutputError):
        RunDirectory(tmp_path).refuse_foreign()


def test_turns_are_waited_for(tmp_path):
    order = []

    def write(name: str) -> None:
        with in_turn(tmp_path / "search.json"):
            order.append(name)
            time.sleep(0.02)
            order.append(name)

    threads = [threading.Thread(target=write, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[::2] == order[1::2]
    assert not list(tmp_path.iterdir())


def test_who_stops_waiting_for_its_turn_takes_nothing_away(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with in_turn(tmp_path / ROWS):
        with monkeypatch.context() as patch:
            patch.setattr(lock_file.fcntl, "flock", interrupted)
            with pytest.raises(KeyboardInterrupt), in_turn(tmp_path / ROWS):
                pass
        assert (tmp_path / ROWS_LOCK).exists(), "it is another's turn"
    assert not list(tmp_path.iterdir())


def test_a_turn_is_one_whatever_link_leads_to_the_file(tmp_path):
    (tmp_path / ROWS).touch()
    (tmp_path / "link").symlink_to(ROWS)
    with in_turn(tmp_path / "link"):
        assert (tmp_path / ROWS_LOCK).exists()


def why_gone(owner: Owner) -> str | None:
    return lock_owner.why_gone(owner, this_process(), silent=False)


def test_a_process_that_ended_and_was_not_waited_for_is_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    owner = dataclasses.replace(this_process(), pid=process.pid, started="")
    deadline = time.monotonic() + 10
    while why_gone(owner) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.wait()
    assert why_gone(this_process()) is None


def test_systems_without_proc_are_asked_by_ps(monkeypatch, tmp_path):
    monkeypatch.setattr(lock_owner, "PROCESSES", tmp_path)
    here = this_process()
    assert here.started
    assert why_gone(here) is None
    assert why_gone(dataclasses.replace(here, pid=2**22 + 1)) is not None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5.0, "0 s"), (59.9, "59 s"), (61.0, "1 min"), (7260.0, "2 h 1 min"), (9e4, "1 d 1 h")],
)
def test_an_age_is_told_in_its_largest_units(seconds, said):
    assert age(seconds) == said


def test_a_lock_names_its_owner_in_json(tmp_path):
    with locked(tmp_path, Told()):
        plain = json.loads((tmp_path / LOCK).read_text())
    assert plain["kind"] == "lock"
    assert plain["pid"] == os.getpid()
    assert {"host", "boot", "started", "command", "since"} <= plain.keys()
