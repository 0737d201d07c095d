"""Trainings side by side tell everything, in one order, and stop when nobody listens."""

import signal
import threading
import time

import pytest

from mulo_cli.studies.side_by_side import side_by_side


def letters(word: str):
    """Tell a word letter by letter, slower at the end of the alphabet."""
    for letter in word:
        time.sleep((ord(letter) - ord("a")) / 5_000)
        yield letter


@pytest.mark.parametrize(
    ("at_once", "told"), [(1, "zaybxcd"), (2, "zxacybd"), (3, "zxdacyb"), (9, "zxdacyb")]
)
def test_the_order_depends_on_how_many_there_are_and_not_on_how_fast_they_are(at_once, told):
    words = ["zayb", "xc", "d"]
    assert "".join(side_by_side(map(letters, words), at_once)) == told


def test_as_many_advance_at_once_as_were_asked_for_and_no_more():
    together = threading.Barrier(3, timeout=10)

    def meeting():
        for _ in range(4):
            together.wait()  # breaks unless three are here
            yield 1

    assert sum(side_by_side((meeting() for _ in range(6)), 3)) == 24


def test_one_that_fails_ends_all_with_its_error():
    def failing():
        yield "a"
        raise ArithmeticError

    told = side_by_side(iter([failing(), letters("bbbb")]), 2)
    with pytest.raises(ArithmeticError):
        list(told)


def test_who_closes_it_waits_for_steps_and_can_be_interrupted_meanwhile():
    """As by a second Ctrl-C; a step lasts until the end of the test."""
    released = threading.Event()

    def endless():
        yield "a"
        released.wait(timeout=10)
        yield "b"

    def interrupt(*_):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        told = side_by_side((endless() for _ in range(2)), 2)
        assert [next(told), next(told)] == ["a", "a"]
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            told.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        released.set()


def test_nothing_begins_once_nobody_listens():
    begun = []

    def counted(number):
        begun.append(number)
        yield number
        yield number

    told = side_by_side((counted(number) for number in range(100)), 2)
    next(told)
    told.close()
    assert begun == [0, 1]
