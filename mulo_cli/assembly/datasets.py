"""From what a user wrote after --dataset to a data set."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from pydantic import TypeAdapter, ValidationError

from mulo_cli.datasets.base import Dataset
from mulo_cli.datasets.catalogue import DATASETS, DatasetEntry, entry_at, prepared_entry
from mulo_cli.datasets.options import DatasetOptions
from mulo_cli.datasets.prepared import data_folder, prepared_names
from mulo_cli.errors import UsageError, shortened
from mulo_cli.folders import below_home
from mulo_cli.recipes.nearest import nearest_hint
from mulo_cli.recipes.references import NamedReference, parse_named


def build_dataset(text: str, *, with_data: bool = True) -> Dataset:
    """Load a data set as a user names it (`NAME[:key=value,...]`), onto the default device.

    Args:
        text: as written; the name is one of the catalogue, of a prepared set, or a path.
        with_data: False gives shapes in place of arrays, where a set can be described.

    Raises:
        UsageError: an unknown name, or an option that the data set does not have.
        DataError: it is not there, or cannot be read.
    """
    reference = parse_named(text)
    entry = find_dataset(reference.name)
    options = dataset_options(reference, entry.options)
    if not with_data and entry.describe is not None:
        return dataclasses.replace(entry.describe(options), name=text)
    dataset = entry.load(options)
    splits = jax.tree.map(jnp.asarray, dict(dataset.splits))
    return dataclasses.replace(dataset, name=text, splits=splits)


def find_dataset(name: str) -> DatasetEntry:
    """Return what a name means: of the catalogue, else of a prepared set, else a path.

    Raises:
        UsageError: nothing; names the nearest.
        DataError: a set that is damaged, or a path that holds neither images nor text.
    """
    if name in DATASETS:
        return DATASETS[name]
    if name in prepared_names():
        return prepared_entry(data_folder() / name)
    path = below_home(name)
    if path.exists():
        return entry_at(path)
    raise UsageError(
        f"unknown data set {shortened(name)}, and no file or folder of that name",
        nearest_hint(name, {*DATASETS, *prepared_names()}),
    )


def dataset_options(reference: NamedReference, known: Sequence[str]) -> DatasetOptions:
    """Return what is said about a data set as values of their types.

    Raises:
        UsageError: an option that is not among the known ones, or a value that it cannot have.
    """
    for key in reference.options:
        if key not in known:
            raise UsageError(
                f"data set {reference.name!r} has no option {key!r}",
                nearest_hint(key, known) if known else "leave it away",
            )
    try:
        return TypeAdapter(DatasetOptions).validate_python(dict(reference.options))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise UsageError(
            f"{key}={reference.options[key]} in {reference.text!r}: {first['msg'].lower()}",
            "`docs/reference/data.md` tells the values of every option",
        ) from None
