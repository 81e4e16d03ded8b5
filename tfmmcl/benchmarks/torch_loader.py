"""The pipeline's peers: PyTorch `DataLoader`s of two processes that augment in NumPy."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from tfmmcl.benchmarks.numpy_views import NumpyViews
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.protos import example_pb2
from tfmmcl.settings import PretrainSettings

_FIELDS = {"signals": "<i2", "structured": "<f4", "statics": "<f4"}


class PlainRecords(Dataset):
    """Two views of any record by its number, read where an index says that it begins; checksums are not looked at."""

    def __init__(self, data: DataSet, views: NumpyViews) -> None:
        self._data, self._views = data, views
        self._index = [(path, *span) for path in data.shards("train") for span in _spans(path)]

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._index)

    def __getitem__(self, number: int) -> list[dict[str, np.ndarray]]:
        """Returns two views of one record."""
        path, offset, length = self._index[number]
        with open(path, "rb") as file:
            file.seek(offset)
            features = example_pb2.Example.FromString(file.read(length)).features.feature
        raw = {name: features[name].bytes_list.value[0] for name in _FIELDS}
        return _views_of(raw, self._data, self._views)


def tfrecord_records(data: DataSet, views: NumpyViews) -> IterableDataset:
    """Returns the `tfrecord` package's data set over all training shards, read in a random order without end."""
    from tfrecord.torch.dataset import MultiTFRecordDataset

    shards = dict.fromkeys(data.shards("train"), 1.0)
    transform = partial(_views_of, data=data, views=views)
    fields = dict.fromkeys(_FIELDS, "byte")
    return MultiTFRecordDataset("{}", None, shards, fields, shuffle_queue_size=32, transform=transform)


def loader(
    make: Callable[[DataSet, NumpyViews], Dataset],
    data: DataSet,
    settings: PretrainSettings,
    workers: int | None = None,
) -> DataLoader:
    """Returns batches of two views, without end as far as anyone will look.

    Args:
        make: Makes single trajectories: `PlainRecords` or `tfrecord_records`.
        data: The prepared data set.
        settings: Augmentations and batch size.
        workers: Processes. Default: one for each core.
    """
    records = make(data, NumpyViews(data.spec, data.statistics, settings.augmentation))
    endless = isinstance(records, IterableDataset)
    sampler = None if endless else RandomSampler(records, replacement=True, num_samples=2**31)
    workers = os.cpu_count() or 1 if workers is None else workers
    return DataLoader(records, settings.data.batch_size, sampler=sampler, num_workers=workers)


def _views_of(raw: Mapping[str, Any], data: DataSet, views: NumpyViews) -> list[dict[str, np.ndarray]]:
    shapes = data.spec.shapes
    arrays = {name: np.frombuffer(raw[name], dtype).reshape(shapes[name]) for name, dtype in _FIELDS.items()}
    # PyTorch seeds its own generator in every worker, and not NumPy's.
    rng = np.random.default_rng(torch.randint(2**62, ()).item())
    return views(**arrays, rng=rng)


def _spans(path: str) -> Iterator[tuple[int, int]]:
    """Yields where each record of a TFRecord file begins, and its length in bytes."""
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0]
            yield file.tell(), length
            file.seek(length + 4, os.SEEK_CUR)
