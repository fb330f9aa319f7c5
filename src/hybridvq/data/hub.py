"""Data sets of the Hugging Face hub, by id."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hybridvq.data.decode import UnreadableError
from hybridvq.data.images import Split
from hybridvq.data.labels import LABEL_COLUMN, LabelColumn, Labels, from_columns, is_label, read_column
from hybridvq.data.listing import note
from hybridvq.data.machine import machine_fault
from hybridvq.data.parquet import find_image_column
from hybridvq.data.splits import hold_out, named_sides, other_split
from hybridvq.errors import DataError
from hybridvq.printing import say

Loaded = TypeVar("Loaded")


class HubRecords:
    """The rows of a `datasets.Dataset`, memory-mapped from its cache."""

    def __init__(self, name: str, dataset: Any, column: str, labels: Callable[[], Labels | None]) -> None:
        self.name = name
        self.location = name
        self.labels = labels
        self._dataset = dataset
        self._column = column

    def __len__(self) -> int:
        return len(self._dataset)

    def name_of(self, record: int) -> str:
        return f"{self._dataset.split or 'train'} row {record}"

    def read(self, record: int) -> bytes | Path:
        value = self._dataset[record][self._column]
        if not isinstance(value, dict):
            value = {"bytes": value, "path": None}
        if value["bytes"] is not None:
            return value["bytes"]
        if value["path"] is None:
            raise UnreadableError("no bytes")
        return Path(value["path"])

    def identity(self, selected: np.ndarray) -> Iterator[str]:
        yield f"{self.name}\t{self._dataset.split}\t{len(self)}"
        yield selected.astype("<i8").tobytes().hex()


def looks_like_hub_id(data: str) -> bool:
    """Tell whether a string has the form owner/name of a hub data set."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", data) is not None and not data.endswith(".parquet")


def open_hub(data: str, split: Split) -> tuple[HubRecords, np.ndarray]:
    """Load a hub data set, from the network or the cache of `datasets`, and find the rows of a split.

    The split is that of `chosen_part`, or else 10% of the rows are held out by a hash of the row number.

    Raises:
        DataError: it cannot be loaded, or has no column of images.
    """
    parts = _load(data)
    part, other = chosen_part(data, parts, split)
    labels = partial(part_labels, data, _labels(parts[part]), None if other is None else _labels(parts[other]))
    records = HubRecords(data, *encoded_column(data, parts[part]), labels)
    if other is None:
        return records, hold_out(map(str, range(len(records))), split, data)
    if not len(records):
        raise DataError(f"{data} has no rows in its {split} split; give another data set")
    return records, np.arange(len(records))


def chosen_part(data: str, parts: Iterable[str], split: Split) -> tuple[str, str | None]:
    """Return the name of the part that is a split, and that of the other split.

    The latter is None where the parts do not name both, by the words of `split_files`: then the first is 'train', or
    the first there is, of which some is to be held out. Of several it is told on stderr.
    """
    names = list(parts)
    sides = named_sides({name: name for name in names})
    if sides:
        return sides[split], sides[other_split(split)]
    part = "train" if "train" in names else names[0]
    if len(names) > 1:
        note(f"{data} does not name both a train and a test split; of {', '.join(names)} only {part} is read")
    return part, None


def _load(data: str) -> dict[str, Any]:
    import datasets

    return loaded(data, lambda: dict(datasets.load_dataset(data)))


def loaded(data: str, load: Callable[[], Loaded]) -> Loaded:
    """Return what `load` does, saying that it asks the hub.

    Raises:
        DataError: it raised whatever it did.
    """
    say(f"there is no folder {data} here; looking for it on the hub", error=True)
    try:
        return load()
    # Whatever the network, the hub client or a builder raises; the user can only check the name and the net.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(". ") or type(error).__name__
        raise machine_fault(error) or DataError(
            f"'{data}' is no path here, and as a hub data set it cannot be loaded ({reason}); check its name "
            "and the network, or give a folder or .parquet file"
        ) from None


def part_labels(data: str, own: Any, other: Any) -> Labels | None:
    """Read the labels of a part, numbered among those of the other; each is a `datasets.Dataset` of labels or None."""
    return from_columns([_read_labels(data, own)], [_read_labels(data, other)])


def _labels(part: Any) -> Any:
    return part.select_columns([LABEL_COLUMN]) if LABEL_COLUMN in (part.column_names or []) else None


def _read_labels(data: str, part: Any) -> LabelColumn | None:
    if part is None or not is_label(part.features.arrow_schema.field(LABEL_COLUMN).type):
        return None
    names = getattr(part.features[LABEL_COLUMN], "names", None)
    values = part.with_format("arrow")[:].column(LABEL_COLUMN)
    return read_column(values, tuple(names) if names else None, data)


def encoded_column(data: str, part: Any) -> tuple[Any, str]:
    """Return a `datasets` part reduced to its column of images, which stay encoded, and the column's name.

    Raises:
        DataError: it has no column called like images, or that column holds none.
    """
    import datasets

    column = find_image_column(part.column_names or [], data)
    part = part.select_columns([column])
    feature = part.features[column]
    if isinstance(feature, datasets.Image):
        part = part.cast_column(column, datasets.Image(decode=False))
    elif getattr(feature, "dtype", None) not in ("binary", "large_binary"):
        raise DataError(f"{data} has a column '{column}' of type {feature}; it must hold encoded images")
    return part, column
