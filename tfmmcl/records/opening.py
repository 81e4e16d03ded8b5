"""A data set as a run's settings want it: where it is or as a local copy, and as it is or without what is damaged."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfmmcl.cohorts.splits import Split
from tfmmcl.records.cache import open_cached
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.salvage import sound_part
from tfmmcl.settings import DataSettings

_NAMED = 5


@contextlib.contextmanager
def opened(settings: DataSettings, splits: Sequence[Split]) -> Iterator[tuple[DataSet, dict[Split, int]]]:
    """Opens a data set, and says what of it is skipped.

    Args:
        settings: Which, where and how.
        splits: What will be read; nothing else is looked at for damage.

    Yields:
        The data set, and how many records of each split are skipped; none, unless `on_corrupt` is `skip`.

    Raises:
        InputError: If it is not a data set.
    """
    data = open_cached(settings.path, settings.cache)
    if settings.on_corrupt == "stop":
        yield data, {}
        return
    with tempfile.TemporaryDirectory(prefix="tfmmcl-sound-") as folder:
        sound, lost = sound_part(data, splits, Path(folder))
        for split, problems in lost.items():
            if problems:
                count, named = data.count(split), problems[:_NAMED]
                more = f"\n  and {len(problems) - len(named)} more" if len(problems) > len(named) else ""
                print(
                    f"warning: {len(problems)} of {count} {split} records are damaged and skipped:\n  "
                    + "\n  ".join(named)
                    + more,
                    file=sys.stderr,
                    flush=True,
                )
        yield sound, {split: len(problems) for split, problems in lost.items() if problems}
