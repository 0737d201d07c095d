"""The house stands: every import points down, and the front door opens without the engine."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mulo_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
ENGINE_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax", "jaxtyping"}
SCREEN_LIBRARIES = {"typer", "rich"}

FLOORS = {
    "types": 0,
    "errors": 0,
    "bounded_files": 0,
    "folders": 0,
    "machine": 0,
    "processes": 0,
    "results": 0,
    "recipes": 0,
    "mup": 1,
    "datasets": 2,
    "optimizees": 2,
    "optimizers": 2,
    "learned_optimizers": 2,
    "tasks": 3,
    "artefacts": 3,
    "inner_training": 4,
    "gradient_estimators": 5,
    "meta_training": 6,
    "studies": 6,
    "assembly": 7,
    "cli": 8,
}

FORBIDDEN = {
    "results": ENGINE_LIBRARIES,
    "recipes": ENGINE_LIBRARIES,
    "errors": ENGINE_LIBRARIES,
    "tasks": {"optimizers", "learned_optimizers"},
    "inner_training": {"catalogue"},
    "gradient_estimators": {"datasets", "results", "orbax"},
    "meta_training": {"studies", "recipes"},
    "studies": {"meta_training", "recipes"},
}
"""Beyond the rule of floors: what a room never imports."""

SAME_FLOOR_ALLOWED = {
    ("recipes", "errors"),
    ("recipes", "bounded_files"),
    ("results", "errors"),
    ("results", "bounded_files"),
    ("results", "machine"),
    ("processes", "errors"),
}
"""Floor 0 is one floor of words; on floors 1 to 7 rooms of one floor never import each other."""


def room(path: Path) -> str:
    """Return the room a file belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Return dotted names of all modules a file imports, `if TYPE_CHECKING` excepted."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if at_import_time else ast.walk(tree)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(name: str) -> str | None:
    """Return the room of an imported module of this package."""
    parts = name.split(".")
    return parts[1] if parts[0] == "mulo_cli" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = room(path)
    if here in ("__init__", "__main__"):
        pytest.skip("the front doors hand out what is above them")
    for name in imports(path):
        there = ours(name)
        if there is None or there == here:
            continue
        down = FLOORS[there] < FLOORS[here]
        assert down or (here, there) in SAME_FLOOR_ALLOWED, f"{here} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_keeps_out_what_is_not_its_business(path):
    forbidden = FORBIDDEN.get(room(path), set())
    for name in imports(path):
        parts = set(name.split("."))
        assert not parts & forbidden, f"{room(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_knows_the_screen(path):
    if room(path) == "cli":
        engine = {name.split(".")[0] for name in imports(path, at_import_time=True)}
        assert not engine & ENGINE_LIBRARIES, "the command line imports engines inside functions"
        return
    assert not {name.split(".")[0] for name in imports(path)} & SCREEN_LIBRARIES
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_says_why_it_exists(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_only_one_file_knows_tensorflow_datasets():
    knowing = [path for path in FILES if "tensorflow_datasets" in imports(path)]
    assert [path.name for path in knowing] == ["tfds.py"]


@pytest.mark.parametrize("arguments", [["--help"], ["meta-train", "--help"], ["--version"]])
def test_help_does_not_import_the_engine(arguments):
    script = (
        "import sys\nfrom mulo_cli.cli.app import run\nfrom mulo_cli.cli.terminal import Terminal\n"
        f"sys.argv = ['mulo', *{arguments!r}]\ncode = run(Terminal())\n"
        "heavy = {'jax', 'numpy', 'sklearn', 'tensorflow_datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_optimizer_can_be_used_without_typer_or_data_libraries():
    script = (
        "import sys, mulo_cli\nmulo_cli.learned_optimizer, mulo_cli.infer_roles\n"
        "heavy = {'typer', 'tensorflow', 'tensorflow_datasets', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
