"""What watches over hostile inputs sees what it is there to see."""

import subprocess
import sys
import time

import pytest
from hypothesis import strategies as st

from tests.fuzz import harness
from tests.fuzz.harness import Finding, Target, attempt

MIB = 2**20

HANGS = """
import collections, itertools
from hypothesis import strategies as st
from tests.fuzz import harness
harness.SECONDS, harness.HANGING = 0.1, 2
forever = lambda *_: collections.deque(itertools.repeat(0), maxlen=0)
harness.attempt(harness.Target("hangs", st.none(), forever), None)
"""


def takes(size):
    """Return a target that fills so many bytes, and gives them back."""
    return Target("takes", st.none(), lambda *_: len(b"x" * size))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux begins anew with the peak")
def test_memory_is_seen_to_grow_though_it_was_larger_before(monkeypatch):
    attempt(takes(300 * MIB), None)
    monkeypatch.setattr(harness, "GROWTH", 100 * MIB)
    assert attempt(takes(50 * MIB), None) == "read"
    with pytest.raises(Finding, match="memory"):
        attempt(takes(200 * MIB), None)


def test_what_works_for_long_or_waits_for_long_is_late(monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 0.2)
    assert attempt(Target("sleeps", st.none(), lambda *_: time.sleep(0.3)), None) == "read"
    for forever in (lambda *_: time.sleep(60), lambda *_: all(iter(lambda: True, False))):
        with pytest.raises(Finding, match="more than"):
            attempt(Target("never ends", st.none(), forever), None)


def test_a_process_that_hears_no_alarm_ends():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
