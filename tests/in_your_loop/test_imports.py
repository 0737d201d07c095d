"""Using an optimizer needs neither TensorFlow nor Typer."""

import subprocess
import sys

from tests.in_your_loop.loops import ROOT

SCRIPT = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "typer"):
    sys.modules[name] = None  # an import of it is an ImportError
import jax, jax.numpy as jnp
import mulo_cli as mulo
def init(width):
    return lambda key: {"kernel": jnp.zeros((3, width)), "bias": jnp.zeros(width)}
roles = mulo.infer_roles(init(8), init(16))
tx = mulo.learned_optimizer("mulo-m-desk", roles=roles, num_steps=10)
params = init(16)(jax.random.key(0))
updates, state = jax.jit(tx.update)(params, tx.init(params), params)
print(sorted(updates))
"""


def test_an_optimizer_without_tensorflow_and_typer():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['bias', 'kernel']"
