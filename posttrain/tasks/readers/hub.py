"""Data sets of the Hugging Face hub, or folders that `datasets` understands: `NAME[:config][@split]`."""

from __future__ import annotations

from typing import Any

import datasets

from posttrain.tasks.records import Record, gather
from posttrain.types import UserError


def read(source: str) -> list[Record]:
    """The rows of one split (default: train).  Class numbers become class names."""
    name, config, split = _parts(source)
    place = f"hub:{name}@{split}"
    data = _ask(place, datasets.load_dataset, name, config, split=split)
    names = {
        column: feature.names for column, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)
    }

    def fields(row: dict[str, Any], _: str) -> dict[str, Any]:
        for column, labels in names.items():
            value = row[column]
            row[column] = None if value is None or value < 0 else labels[value]  # -1: not labelled
        return row

    return gather(((f"{place}, row {number}", row) for number, row in enumerate(data, 1)), fields)


def splits(source: str) -> list[str]:
    """The names of the splits that the data set has."""
    name, config, _ = _parts(source)
    return list(_ask(f"hub:{name}", datasets.get_dataset_split_names, name, config))


def _parts(source: str) -> tuple[str, str | None, str]:
    rest, _, split = source.partition("@")
    name, _, config = rest.partition(":")
    return name, config or None, split or "train"


def _ask(place: str, function: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:  # what the library documents
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load: {first}", place=place, remedy="check the name, the configuration and the network"
        ) from error
