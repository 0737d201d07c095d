"""The user's own networks: importing `MODULE:FUNCTION`, and what its result may be.

The contract: FUNCTION takes a width (and `depth=`, where several are asked for) and returns either
`(module, inputs, ...)`, a linen module and example inputs, or a function key -> params, whose
result is any pytree or an nnx model.
"""

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from mulo_cli.errors import MuloError, UsageError, shortened
from mulo_cli.mup.roles import Init, leaf_name
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import UserFunction
from mulo_cli.types import Params, PRNGKey

MakeNetwork: TypeAlias = Callable[..., Any]

CONTRACT = (
    "return (module, example_inputs) with a flax.linen module, or a function key -> params, for "
    "example lambda key: Model(width, nnx.Rngs(key))"
)


class UserCodeError(MuloError):
    """The user's own code raised an exception, or returned something else than it is asked for."""


def load_function(reference: UserFunction) -> MakeNetwork:
    """Import a function, from the working directory before anything else.

    Raises:
        UsageError: there is no such module or function.
        UserCodeError: the module raises an exception when it is imported.
    """
    here = os.getcwd()
    if sys.path[:1] != [here]:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        with user_code(reference):
            found: Any = importlib.import_module(reference.module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"there is no module {error.name!r} to import {reference.text!r} from",
            f"modules are looked for in {here} and where Python is installed",
        ) from error
    for part in reference.name.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if callable(value)]
            raise UsageError(
                f"module {reference.module!r} has no {part!r}", nearest_hint(part, known)
            )
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{reference.text!r} is not a function", f"it must {CONTRACT}")
    return found


def network_init(
    make: MakeNetwork, reference: UserFunction, width: int, depth: int | None = None
) -> Init:
    """Return key -> params of the user's network of a size.

    Raises:
        UserCodeError: the function raises an exception, or returns something else.
    """
    with user_code(reference):
        made = make(width) if depth is None else make(width, depth=depth)
    if isinstance(made, tuple) and len(made) > 1 and isinstance(made[0], nn.Module):
        made = functools.partial(_init_linen, made[0], made[1:])
    if not callable(made) or isinstance(made, nn.Module | nnx.Module):
        raise UserCodeError(
            f"{reference.text} returned {shortened(made)}, which is no network with its inputs",
            f"it must {CONTRACT}",
        )
    return functools.partial(_called, made, reference)


def _called(init: Init, reference: UserFunction, key: PRNGKey) -> Params | nnx.Module:
    """Call the user's function for its parameters, and look at what it returns.

    Raises:
        UserCodeError: it raises an exception, or returns something else.
    """
    with user_code(reference):
        made = init(key)
    if isinstance(made, nnx.Module):
        return made
    leaves = jax.tree.leaves_with_path(made)
    wrong = [(path, leaf) for path, leaf in leaves if not _is_array(leaf)]
    if wrong or not leaves:
        what = f"{shortened(wrong[0][1])} as {leaf_name(wrong[0][0])!r}" if wrong else "nothing"
        raise UserCodeError(
            f"the init of {reference.text} returned {what} instead of parameters",
            f"the function must {CONTRACT}; params are a tree of arrays",
        )
    return made


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float)


def _init_linen(module: nn.Module, inputs: tuple, key: PRNGKey) -> Params:
    """Initialise a linen module from example inputs, or from their shapes alone."""
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, inputs
    )
    return module.init(key, *zeros)["params"]


@contextmanager
def user_code(reference: UserFunction) -> Iterator[None]:
    """Turn an exception that the user's code causes into one clear error.

    Raises:
        UserCodeError: names the exception, and the last line of the user's code that led to it.
    """
    try:
        yield
    except MuloError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (reference.module == error.name or _is_parent(error.name, reference)):
            raise
        raise _told(reference, error) from error
    except (Exception, SystemExit) as error:
        raise _told(reference, error) from error


def _is_parent(name: str, reference: UserFunction) -> bool:
    return reference.module.startswith(f"{name}.")


def _told(reference: UserFunction, error: BaseException) -> UserCodeError:
    first_line = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {first_line}".rstrip(": ")
    place = _place(error)
    return UserCodeError(
        f"{reference.text} failed with {said}" + (f" ({place})" if place else ""),
        "the error is in your code, or in how it uses a library; MULO_DEBUG=1 shows the traceback",
    )


def _place(error: BaseException) -> str | None:
    """Return file and line of the innermost frame in the working directory, else of the last.

    None if the user's code was never entered: it was called with what it does not take.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    here = f"{Path.cwd()}{os.sep}"
    own = [frame for frame in frames if frame.filename.startswith(here)]
    last = own[-1] if own else frames[-1]
    if last.filename == __file__:
        return None
    return f"{last.filename.removeprefix(here)}, line {last.lineno}"
