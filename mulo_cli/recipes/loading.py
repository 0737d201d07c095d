"""From a name or a file, a scale, a parametrization and overrides to a resolved recipe.

A recipe file may hold `[variants.NAME...]` tables, of which those named after the scale, the
parametrization and `scale-parametrization` are laid over it, in this order; and it may say
`extends = "multi-width"` and change a few settings of what that one resolves to.
"""

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from mulo_cli.errors import RecipeError, shortened
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.schema import ARCHITECTURES, Recipe, as_dict, flatten, known_keys
from mulo_cli.recipes.toml_files import names_in, parse_toml, read_toml

LIBRARY = resources.files("mulo_cli.recipes") / "library"


def library_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return names_in(LIBRARY)


def load_recipe(
    reference: str,
    scale: str | None = None,
    parametrization: str | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """Resolve a recipe.

    Args:
        reference: a library name, or the path of a TOML file.
        scale: variant to lay over it; None keeps the file's own.
        parametrization: "mup" or "sp"; None keeps the file's own.
        overrides: `section.key=value` each, the value in TOML (or a bare word).

    Raises:
        RecipeError: no such recipe, a malformed file, an unknown key, a value out of bounds.
    """
    values = _vary(_read_chain(reference), reference, scale, parametrization)
    for override in overrides:
        _set(values, *_parse_override(override))
    return parse_recipe(values, reference)


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Check plain values against the schema; `origin` is named in errors."""
    _refuse_unknown_keys(values, origin)
    try:
        # strict types, but tables as sections: pydantic's strict mode allows this for JSON only
        return TypeAdapter(Recipe).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise _readable(error, origin) from None


def to_toml(recipe: Recipe) -> str:
    """Write a resolved recipe as TOML that `load_recipe` reads back to the same recipe."""
    return tomli_w.dumps(as_dict(recipe))


def _read_chain(reference: str, descendants: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Read a recipe file and all it extends, the eldest first."""
    if reference in descendants:
        raise RecipeError(
            f"recipe {reference!r} extends itself (through {' -> '.join(descendants)})",
            "remove one of the `extends` lines",
        )
    raw = read_toml(reference, "recipe", LIBRARY)
    parent = raw.pop("extends", None)
    if parent is None:
        return [raw]
    if not isinstance(parent, str):
        raise RecipeError(
            f"extends = {parent!r} in {reference!r} is not a string",
            'write the name of a recipe, for example extends = "multi-width"',
        )
    return [*_read_chain(parent, (*descendants, reference)), raw]


def _vary(
    chain: list[dict[str, Any]], origin: str, scale: str | None, parametrization: str | None
) -> dict[str, Any]:
    """Lay every file's settings, then its chosen variants, over those of the files it extends."""
    plain: dict[str, Any] = {}
    for raw in chain:
        _check_variants(raw.get("variants", {}), origin)
        plain |= raw
    offered = {name for raw in chain for name in raw.get("variants", {})}
    if scale is not None and scale != plain.get("scale") and scale not in offered:
        raise RecipeError(
            f"recipe {origin!r} has no scale {scale!r}",
            f"its variants are {', '.join(sorted(offered)) or 'none'}; leave --scale away",
        )
    chosen = {
        "scale": scale or plain.get("scale", "custom"),
        "parametrization": parametrization or plain.get("parametrization", "mup"),
    }
    names = [str(name) for name in chosen.values()]
    values: dict[str, Any] = {}
    for raw in chain:
        values = _merge(values, {k: v for k, v in raw.items() if k != "variants"})
        for name in (*names, "-".join(names)):
            values = _merge(values, raw.get("variants", {}).get(name, {}))
    return values | chosen


def _check_variants(variants: Any, origin: str) -> None:
    """Refuse what no variant can mean, also in those that were not chosen."""
    tables = variants.items() if isinstance(variants, dict) else [("variants", variants)]
    for name, variant in tables:
        if not isinstance(variant, dict):
            raise RecipeError(
                f"{name} in recipe {origin!r} is not a table", "write [variants.NAME.section]"
            )
        _refuse_unknown_keys(variant, f"{origin} (variant {name})")


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both_tables else value
    return merged


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            f"--set {override!r} is not of the form section.key=value",
            "for example --set meta_optimizer.steps=50",
        )
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    return key.strip(), value


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    if dotted not in known_keys():
        raise RecipeError(f"unknown recipe key {dotted!r}", nearest_hint(dotted, known_keys()))
    *sections, key = dotted.split(".")
    for section in sections:
        former = values.get(section)
        values[section] = dict(former) if isinstance(former, dict) else {}
        values = values[section]
    values[key] = value


def _refuse_unknown_keys(values: dict[str, Any], origin: str) -> None:
    for key in flatten(values):
        if key not in known_keys():
            raise RecipeError(
                f"unknown key {key!r} in recipe {origin!r}", nearest_hint(key, known_keys())
            )


def _readable(error: ValidationError, origin: str) -> RecipeError:
    """Turn pydantic's first complaint into one sentence with the key and the value."""
    first = error.errors()[0]
    # between the section and the key, pydantic names the architecture
    architecture = first["loc"][1] if first["loc"][1:2] and first["loc"][0] == "optimizer" else None
    parts = [str(part) for part in first["loc"] if part not in ARCHITECTURES]
    key = ".".join(parts) or "recipe"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":
        wanted = first["input"]["architecture"]
        return RecipeError(
            f"unknown architecture {shortened(wanted)} in recipe {origin!r}",
            nearest_hint(str(wanted), ARCHITECTURES),
        )
    if first["type"] == "union_tag_not_found":
        first, key = {**first, "type": "missing"}, "optimizer.architecture"
    if first["type"] == "missing":
        return RecipeError(
            f"recipe {origin!r} lacks {key}",
            'give it a value, or start from a complete recipe: extends = "multi-width"',
        )
    if first["type"] == "unexpected_keyword_argument":
        return RecipeError(
            f"{key} in recipe {origin!r} is not a setting of {architecture}",
            f"leave it away, or choose another optimizer.architecture ({', '.join(ARCHITECTURES)})",
        )
    shown = "" if isinstance(first["input"], dict) else f" = {shortened(first['input'])}"
    return RecipeError(f"{key}{shown} in recipe {origin!r}: {message}", f"change {key}")
