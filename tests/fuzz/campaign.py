"""Fuzzing for as long as one likes: `python -m tests.fuzz.campaign --minutes 4 [--only NAME ...]`.

Targets are tried in a process with bounded memory. A finding does not end it: findings are
told apart by what happened and where, and the smallest input of each is kept. What is written in C
and never ends does end it: that is counted, another process goes on with the next target, and with
`--keep` the input is in `NAME-latest.pickle`.
"""

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEMORY = 6 * 2**30
"""Bytes of address space of a target's process, jax included."""

CHUNK = 200
"""Inputs drawn from one seed."""


def main() -> None:
    """Try all targets, or some; print a table, and exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="of all targets together")
    parser.add_argument("--only", nargs="*", default=[], help="names of targets; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the first chunk of inputs")
    parser.add_argument("--keep", type=Path, help="folder for the smallest input of each finding")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for name in asked.child or ():
        told = _tried(name, asked.minutes * 60, asked.seed, asked.keep)
        print(json.dumps({"name": name, **told}), flush=True)
    if asked.child:
        return
    sys.exit(1 if _campaign(asked) else 0)


def _campaign(asked: argparse.Namespace) -> bool:
    """Try targets one after the other; whether anything was found."""
    from tests.fuzz.targets import TARGETS

    names = asked.only or list(TARGETS)
    share = asked.minutes / len(names)
    print(f"{'target':28} {'tried':>7} {'read':>7} {'refused':>8} {'found':>6}", flush=True)
    total, anything = 0, False
    for told in _told(names, share, asked):
        total += told["tried"]
        anything |= bool(told["findings"])
        print(
            f"{told['name']:28} {told['tried']:7} {told['read']:7} {told['refused']:8} "
            f"{len(told['findings']):6}",
            flush=True,
        )
        for what, times in told["findings"].items():
            print(f"    {times} x {what}", flush=True)
    print(f"{'together':28} {total:7}")
    return anything


def _told(names: list[str], minutes: float, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what became of each target; where a process dies, another goes on with the next."""
    left = list(names)
    while left:
        words = ["--child", *left, "--minutes", str(minutes), "--seed", str(asked.seed)]
        words += ["--keep", str(asked.keep)] if asked.keep else []
        with subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.campaign", *words],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_bound_memory,
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                yield json.loads(line)
                left.pop(0)
        if left:
            died = {f"the process ended with {child.returncode}": 1}
            yield {"name": left.pop(0), "tried": 0, "read": 0, "refused": 0, "findings": died}


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tried(name: str, seconds: float, first_seed: int, keep: Path | None) -> dict[str, Any]:
    """Draw inputs until the time is over."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.fuzz.harness import Finding, attempt
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    counts = {"tried": 0, "read": 0, "refused": 0}
    findings: dict[str, int] = {}
    smallest: dict[str, bytes] = {}
    end = time.monotonic() + seconds
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)

    def once(value: Any) -> None:
        if time.monotonic() > end:
            return
        counts["tried"] += 1
        if keep is not None:
            (keep / f"{_file_name(name)}-latest.pickle").write_bytes(pickle.dumps(value))
        try:
            counts[attempt(target, value)] += 1
        except Finding as finding:
            what = finding.kind
            findings[what] = findings.get(what, 0) + 1
            stored = pickle.dumps(value)
            if len(stored) < len(smallest.get(what, stored + b"x")):
                smallest[what] = stored

    settings_ = settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    number = first_seed
    while time.monotonic() < end:
        seed(number)(settings_(given(target.inputs)(once)))()
        number += 1
    if keep is not None:
        (keep / f"{_file_name(name)}-latest.pickle").unlink(missing_ok=True)
        for place, stored in enumerate(smallest.values()):
            (keep / f"{_file_name(name)}-{place}.pickle").write_bytes(stored)
        (keep / f"{_file_name(name)}.txt").write_text("\n".join(smallest))
    return {**counts, "findings": findings}


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace("/", "-")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
