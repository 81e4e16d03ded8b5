"""The TFRecord file format, with every checksum checked: `length, crc(length), data, crc(data)`.

The `tfrecord` package reads these files too, but skips the checksums; here they say which record is damaged.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfmmcl.errors import InputError
from tfmmcl.files import location
from tfmmcl.records.protos import TFRecordWriter

_checksum = TFRecordWriter.masked_crc


def write_record(file: BinaryIO, data: bytes) -> None:
    """Appends one record to an open file."""
    length = struct.pack("<Q", len(data))
    file.write(length + _checksum(length) + data + _checksum(data))


def read_records(path: str | Path, offset: int = 0) -> Iterator[bytes]:
    """Yields each record of a file.

    Args:
        path: The file.
        offset: Byte at which to begin, where some record does; records are counted from there.

    Raises:
        InputError: Naming the file and the record, at the first that is truncated or fails its checksum.
    """
    for index, record in enumerate(read_sound_records(path, offset)):
        if isinstance(record, str):
            raise InputError(f"{path}: record {index} {record}")
        yield record


def read_sound_records(path: str | Path, offset: int = 0) -> Iterator[bytes | str]:
    """Yields each record of a file, or what is wrong with it; behind a damaged length nothing can be found."""
    place = location(path)
    size = place.stat().st_size
    with place.open("rb") as file:
        file.seek(offset)
        while (left := size - file.tell()) > 0:
            header = file.read(12)
            if len(header) < 12:
                yield "is truncated in its header."
                return
            if _checksum(header[:8]) != header[8:]:
                yield "has a damaged length (checksum mismatch)."
                return
            (length,) = struct.unpack("<Q", header[:8])
            if length + 4 > left - 12:
                yield f"is truncated: found {left - 12} bytes, expected {length + 4}."
                return
            data = file.read(length)
            yield data if _checksum(data) == file.read(4) else "is damaged (checksum mismatch)."
