"""Class labels: the classes of a set, numbered the same in both splits, and the class of each image."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from hybridvq.errors import DataError

LABEL_COLUMN = "label"


class Labels(NamedTuple):
    """`classes`: names; `ids`: of each record, the place of its class among them, (N,) int64."""

    classes: tuple[str, ...]
    ids: np.ndarray


class LabelColumn(NamedTuple):
    """The label of each row of a table; `names` are what its integers are called, if the table says so."""

    values: list[int] | list[str]
    names: tuple[str, ...] | None


def number_labels(own: Sequence[int | str], other: Iterable[int | str]) -> Labels:
    """Number the labels of a split by their place among all that are found in it or in the other split, sorted."""
    found = {*own, *other}
    if any(isinstance(label, str) for label in found):
        own, found = [str(label) for label in own], {str(label) for label in found}
    place = {label: number for number, label in enumerate(sorted(found))}
    return Labels(tuple(map(str, place)), np.array([place[label] for label in own], dtype=np.int64))


def from_columns(own: Sequence[LabelColumn | None], other: Sequence[LabelColumn | None]) -> Labels | None:
    """The labels of the tables of a split, one after the other; None if one of its tables has none.

    The classes are the names that come with the tables if those of both splits agree on them, else what is found.
    """
    tables = [column for column in own if column is not None]
    if not tables or len(tables) < len(own):
        return None
    others = [column for column in other if column is not None]
    names = tables[0].names
    if names is not None and all(column.names == names for column in (*tables, *others)):
        return Labels(names, np.fromiter(chain(*(column.values for column in tables)), np.int64))
    return number_labels(list(_labels_of(tables)), _labels_of(others))


def _labels_of(columns: Iterable[LabelColumn]) -> Iterable[int | str]:
    for values, names in columns:
        yield from values if names is None else (names[value] for value in values)  # type: ignore[index]


def read_column(values: Any, names: tuple[str, ...] | None, location: str) -> LabelColumn | None:
    """The labels in a `pyarrow.ChunkedArray`; None unless every row has one.

    Args:
        values: integers or strings, see `is_label`.
        names: of the classes, if values are their numbers; one below 0 marks a row without a class, as the hub does
            for hidden test labels.
        location: file or data set, for the message.

    Raises:
        DataError: a number has no name.
    """
    if values.null_count:
        return None
    labels = values.to_pylist()
    if labels and isinstance(labels[0], str):
        names = None
    if labels and names is not None:
        if min(labels) < 0:
            return None
        if max(labels) >= len(names):
            raise DataError(
                f"{location} names {len(names)} classes, but its column '{LABEL_COLUMN}' holds {max(labels)}; write it "
                "again with the names of all classes, or without any"
            )
    return LabelColumn(labels, names)


def is_label(kind: Any) -> bool:
    """Tell whether a `pyarrow.DataType` is one of class labels: integers or strings, perhaps by a dictionary."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)
