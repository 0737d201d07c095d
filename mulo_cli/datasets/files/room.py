"""Memory that threads share: who wants more than is left waits until others give some back."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Room:
    """So many bytes; who wants more than all of them gets them when nobody else has any.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._given_back = Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Have so many bytes for as long as the context lasts; take no others in it.

        Args:
            wanted: bytes.
        """
        with self._given_back:
            self._given_back.wait_for(lambda: not self._taken or self._taken + wanted <= self._size)
            self._taken += wanted
        try:
            yield
        finally:
            with self._given_back:
                self._taken -= wanted
                self._given_back.notify_all()
