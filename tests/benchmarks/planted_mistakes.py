"""Which planted mistakes a coordinate check finds, and how often it raises a false alarm.

    python -m tests.benchmarks.planted_mistakes --repetitions 4 --networks mlp,lm,vit

Every mistake of `tests.studies.planted` is planted alone and checked `repetitions` times, each time
with other seeds; so is the network without any, with every optimizer. A table on stderr, one JSON
line per mistake on stdout.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence

import jax

from mulo_cli.recipes.references import parse_steps, parse_widths
from mulo_cli.results.environment import describe_environment
from tests.studies.planted import BY_DEPTH, BY_NETWORK, RIGHT, Mistake
from tests.studies.planting import World, check, found, world


@dataclasses.dataclass(frozen=True)
class Hits:
    """What became of one mistake over repetitions.

    Attributes:
        network: it was planted in.
        mistake: its name; empty for a network without any.
        optimizer: as named on the command line.
        failed: how often the check failed.
        named: how often it named the right layer, and tensor where there is one.
        undecided: how often there was "not enough data".
        repetitions: of the check.
        told: what the check said first.
    """

    network: str
    mistake: str
    optimizer: str
    failed: int
    named: int
    undecided: int
    repetitions: int
    told: str


def hits(where: World, mistake: Mistake, repetitions: int) -> Hits:
    """Check one mistake (or none) again and again, with fresh seeds."""
    checks = [check(where, mistake, first_seed=where.seeds * n) for n in range(repetitions)]
    return Hits(
        network=where.network,
        mistake=mistake.name,
        optimizer=mistake.optimizer,
        failed=sum(one.verdict.verdict == "fail" for one in checks),
        named=sum(found(one, mistake) for one in checks),
        undecided=sum(one.verdict.verdict == "not enough data" for one in checks),
        repetitions=repetitions,
        told=checks[0].verdict.diagnosis,
    )


def all_hits(networks: Sequence[str], repetitions: int, where: dict) -> Iterator[Hits]:
    """Go through networks, mistakes and right networks."""
    for network in networks:
        mistakes = (BY_NETWORK | BY_DEPTH).get(network, ())
        for mistake in (*RIGHT[network], *mistakes):
            yield hits(world(network, **where), mistake, repetitions)


def main() -> None:
    """Read the arguments, check, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default="mlp,lm,vit,lm-depth")
    parser.add_argument("--repetitions", default="3")
    parser.add_argument("--widths", default=None)
    parser.add_argument("--seeds", default=None)
    given = parser.parse_args()
    (repetitions,) = parse_steps(given.repetitions, "--at")
    where = {}
    if given.widths:
        where["sizes"] = parse_widths(given.widths)
    if given.seeds:
        where["seeds"] = int(given.seeds)
    environment = describe_environment([device.device_kind for device in jax.devices()])
    print(json.dumps(environment), flush=True)
    for one in all_hits(given.networks.split(","), repetitions, where):
        print(json.dumps(dataclasses.asdict(one)), flush=True)
        print(
            f"{one.network:9s} {one.mistake or '(none)':38s} {one.optimizer.split(':')[0]:8s} "
            f"failed {one.failed}/{one.repetitions} named {one.named}/{one.repetitions} "
            f"undecided {one.undecided}  {one.told}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
