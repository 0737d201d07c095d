"""Several trainings at once, each in a thread: XLA runs the small operations of one on one core.

What is told comes in an order that depends on how many there are at once, not on how fast they are.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Told = TypeVar("Told")


def side_by_side(trainings: Iterable[Iterator[Told]], at_once: int) -> Generator[Told, None, None]:
    """Advance so many iterators at once and yield what they tell, in turn.

    The next one begins, in its place, when one has come to its end. Whoever stops listening waits
    for the step that each of them is in, no longer; who closes the generator (and whatever passes
    on what it yields) can be interrupted while waiting: left to the garbage collector, it would
    swallow the interruption.

    Args:
        trainings: begun in this order; each is advanced in threads, by one at a time.
        at_once: how many; one needs no thread.
    """
    waiting = iter(trainings)
    if at_once == 1:
        for training in waiting:
            yield from training
        return
    with ThreadPoolExecutor(at_once) as pool:

        def advance(training: Iterator[Told]) -> tuple[Iterator[Told], Future[Told | None]]:
            return training, pool.submit(next, training, None)

        running = deque(advance(training) for training in islice(waiting, at_once))
        while running:
            training, step = running.popleft()
            told = step.result()
            if told is not None:
                running.append(advance(training))
                yield told
            else:
                running.extend(advance(fresh) for fresh in islice(waiting, 1))
