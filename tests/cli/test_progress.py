"""Progress is a line now and then: what is important at once, the rest when it is time."""

import contextlib
import io

import pytest

from mulo_cli.cli import progress as progress_module
from mulo_cli.cli.meta_progress import Seen
from mulo_cli.cli.progress import PLAIN_SECONDS, Display, LiveDisplay, PlainDisplay, display
from mulo_cli.cli.terminal import Terminal
from mulo_cli.results.records import MetaStepRecord, ValidationRecord


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", clock.monotonic)
    return clock


class Watcher:
    """Somebody who reads what a plain display says."""

    def __init__(self):
        self.screen = io.StringIO()
        with contextlib.redirect_stderr(self.screen):
            self.display = PlainDisplay(Terminal(), "step")

    def start(self, done: int, total: int) -> None:
        self.display.start(done, total)

    def show(self, done: int, text: str, *, important: bool = False) -> list[str]:
        """Return the lines that this made the display say."""
        before = len(self.screen.getvalue())
        with contextlib.redirect_stderr(self.screen):
            self.display.show(done, text, important=important)
        return self.screen.getvalue()[before:].splitlines()


@pytest.fixture
def watcher() -> Watcher:
    watcher = Watcher()
    watcher.start(0, 100)
    return watcher


def test_the_first_thing_is_said_at_once_and_the_next_when_it_is_time(clock, watcher):
    assert watcher.show(0, "compiling") == ["step 0/100 · compiling"]
    clock.now += PLAIN_SECONDS - 0.1
    assert watcher.show(1, "a") == []
    clock.now += 0.1
    assert len(watcher.show(2, "b")) == 1
    assert watcher.show(3, "c") == []


def test_what_is_important_is_said_at_once_and_puts_the_rest_off(clock, watcher):
    watcher.show(0, "compiling")
    clock.now += PLAIN_SECONDS - 1.0
    (said,) = watcher.show(10, "validated", important=True)
    assert said.startswith("step 10/100 · validated")
    clock.now += 1.0
    assert watcher.show(11, "nothing new") == []


def test_the_time_left_is_told_from_what_was_done_since_the_first_thing_said(clock, watcher):
    """Ten of the steps that were there before do not count as fast ones."""
    watcher.show(10, "resumed")
    clock.now += 60.0
    assert watcher.show(40, "a") == ["step 40/100 · a · about 2 min left"]
    clock.now += 60.0
    assert watcher.show(70, "b") == ["step 70/100 · b · about 60 s left"]


def test_at_the_end_no_time_is_left(clock, watcher):
    watcher.show(0, "a")
    clock.now += 60.0
    assert watcher.show(100, "done", important=True) == ["step 100/100 · done"]


def test_nothing_is_guessed_before_anything_is_done(clock, watcher):
    watcher.show(0, "compiling")
    clock.now += 60.0
    assert watcher.show(0, "still compiling") == ["step 0/100 · still compiling"]


def test_brackets_in_a_name_are_no_markup(clock, watcher):
    assert watcher.show(0, "[red]runs/a[/red]") == ["step 0/100 · [red]runs/a[/red]"]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("screen", "kind"), [(Screen, LiveDisplay), (io.StringIO, PlainDisplay)])
def test_a_bar_is_for_terminals_and_lines_for_everything_else(monkeypatch, screen, kind):
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(screen()):
        shown = display(Terminal(), "step")
        assert isinstance(shown, Display)
        assert type(shown) is kind
        shown.start(0, 10)
        shown.show(3, "[3] of ten")
        shown.stop()


def test_a_bar_vanishes_and_leaves_the_cursor_where_it_was(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with contextlib.redirect_stderr(screen):
        shown = LiveDisplay(Terminal())
        shown.start(0, 10)
        shown.show(3, "adamw[0] at width 8")
        shown.stop()
    assert "3/10" in screen.getvalue()
    assert "adamw[0] at width 8" in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue(), "the cursor is shown again"
    assert screen.getvalue().rstrip().endswith("\x1b[2K"), "the bar's line is wiped"


# --- What is told of a meta-training --------------------------------------------------------------


def step(number: int, **losses: float) -> MetaStepRecord:
    return MetaStepRecord(number, losses, 1.0, {}, {}, {}, inner_steps_per_second=1_234.0)


def validation(number: int, *, best: bool, **losses: float) -> ValidationRecord:
    return ValidationRecord(number, losses, losses, best)


def test_before_anything_is_known_it_compiles():
    assert Seen().describe() == "compiling"


def test_validations_and_speed_are_told_as_they_come():
    seen = Seen()
    seen.add(validation(0, best=True, a=2.0, b=1.0))
    assert seen.fresh_validation
    assert seen.describe() == "validation 1.500 · best validation 1.500 (step 0)"
    seen.add(step(0, a=2.0, b=3.0))
    assert not seen.fresh_validation
    assert seen.step == 1
    assert seen.describe() == (
        "validation 1.500 · meta-loss 2.500 · best validation 1.500 (step 0) · 1.23 k inner steps/s"
    )
    seen.add(validation(1, best=False, a=9.0))
    assert "validation 9.000 · meta" in seen.describe()
    assert "best validation 1.500 (step 0)" in seen.describe()


def test_the_meta_loss_is_a_running_mean_that_begins_with_the_first():
    seen, mean = Seen(), 3.0
    for number, loss in enumerate((3.0, 1.0, 2.0)):
        seen.add(step(number, a=loss))
        mean = 0.9 * mean + 0.1 * loss if number else loss
    assert seen.meta_loss == pytest.approx(mean)


def test_a_resumed_run_remembers_its_best():
    seen = Seen()
    seen.resume(7, (0.5, 4))
    assert (seen.step, seen.describe()) == (7, "best validation 0.500 (step 4)")
