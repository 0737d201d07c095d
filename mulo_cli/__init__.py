"""mulo: learned optimizers that keep working when networks grow.

The public names below are loaded when they are first used, so that importing this package, and
`mulo --help`, pay for none of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mulo_cli.assembly.learned import learned_optimizer as learned_optimizer
    from mulo_cli.mup.modules import Readout as Readout
    from mulo_cli.mup.roles import Layout as Layout
    from mulo_cli.mup.roles import ParamRole as ParamRole
    from mulo_cli.mup.roles import RoleKind as RoleKind
    from mulo_cli.mup.roles import infer_roles as infer_roles
    from mulo_cli.mup.scaling import scale_by_mup as scale_by_mup

_HOMES = {
    "learned_optimizer": "mulo_cli.assembly.learned",
    "infer_roles": "mulo_cli.mup.roles",
    "Layout": "mulo_cli.mup.roles",
    "ParamRole": "mulo_cli.mup.roles",
    "Readout": "mulo_cli.mup.modules",
    "RoleKind": "mulo_cli.mup.roles",
    "scale_by_mup": "mulo_cli.mup.scaling",
}

__all__ = [
    "Layout",
    "ParamRole",
    "Readout",
    "RoleKind",
    "infer_roles",
    "learned_optimizer",
    "scale_by_mup",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mulo-cli")
    if name not in _HOMES:
        raise AttributeError(f"module 'mulo_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
