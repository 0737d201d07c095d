"""Which code of the user's own a result depends on: files, and a digest that rows tell."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of libraries, which are not the user's own code, wherever they are."""


def code_digest(module: str) -> str:
    """Return the SHA-256 (hex) of a module's source, and of every module that it imports.

    Only modules under the working directory count, beside the module itself; they are told by the
    import statements in their sources. The digest does not depend on where the folder is.

    Args:
        module: name of a module that has been imported.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_own_modules(module).items()):
        digest.update(f"{name}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _own_modules(first: str) -> dict[str, Path]:
    """Return name -> file of a module and of those under the working directory it leads to."""
    found: dict[str, Path] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        file = _source(sys.modules.get(name))
        if name in found or file is None or not (name == first or _is_own(file)):
            continue
        found[name] = file
        waiting += _imported(sys.modules[name], file)
    return found


def _source(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).exists() else None


def _is_own(file: Path) -> bool:
    here = Path.cwd().resolve()
    path = file.resolve()
    return path.is_relative_to(here) and not INSTALLED.intersection(path.parts)


def _imported(module: ModuleType, file: Path) -> Iterator[str]:
    """Yield the names that a module's source imports, packages above them included."""
    package = module.__package__ or ""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(name, package) if node.level else name
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
