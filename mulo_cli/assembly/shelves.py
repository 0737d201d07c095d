"""Looking a name up on a shelf, and a section's fields for an engine's configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mulo_cli.errors import UsageError
from mulo_cli.recipes.nearest import nearest_hint

Entry = TypeVar("Entry")


def look_up(what: str, name: str, shelf: Mapping[str, Entry]) -> Entry:
    """Return what a shelf has under a name.

    Raises:
        UsageError: nothing; names the nearest.
    """
    if name not in shelf:
        raise UsageError(f"unknown {what} {name!r}", nearest_hint(name, shelf))
    return shelf[name]


def fields_of(config: Callable[..., Entry], section: Any) -> Entry:
    """Build an engine's configuration from the recipe's section with the same field names."""
    fields = dataclasses.fields(cast(Any, config))
    return config(**{field.name: getattr(section, field.name) for field in fields})
