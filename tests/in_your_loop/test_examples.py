"""The how-to's examples, each as it stands, in a process of its own."""

import re
import subprocess
import sys

import pytest

from tests.in_your_loop.loops import ROOT

PAGE = ROOT / "docs" / "how-to" / "use-in-your-loop.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
PROGRAMS = {
    name: next(block for block in BLOCKS if f"# {name}\n" in block)
    for name in ("plain.py", "with_linen.py", "with_nnx.py")
}


SLOW = ("with_linen.py", "with_nnx.py")
"""README's example, which a default test runs, is one of flax.linen; nnx has tests of its own."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PROGRAMS],
)
def test_an_example_runs_and_its_loss_falls(tmp_path, name):
    script = tmp_path / name
    script.write_text(PROGRAMS[name])
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [float(word) for word in re.findall(r"loss (\d+\.\d+)", done.stdout)]
    assert len(losses) >= 3
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]
