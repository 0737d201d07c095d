"""Starts `mulo` again and again without importing its engine each time: forks before JAX begins.

Reads one order a line, as JSON, from stdin: {"arguments", "cwd", "said"}. Answers with the number
of the process that obeys, then with how it ended.
"""

import json
import os
import sys


def obey(order: dict) -> None:
    """Become the command, with all it says going to a file."""
    os.chdir(order["cwd"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for ours, theirs in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(ours, theirs)
    sys.argv = ["mulo", *order["arguments"]]
    from mulo_cli.cli.app import main

    main()


def serve() -> None:
    """Obey orders, one after the other."""
    import jax  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401

    import mulo_cli.assembly.meta_training
    import mulo_cli.assembly.searches
    import mulo_cli.assembly.suites
    import mulo_cli.meta_training.meta_loop  # noqa: F401

    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            obey(json.loads(line))
            return
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
