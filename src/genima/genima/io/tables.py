"""Reading of parquet files with checks of columns, types and sizes before memory is allocated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.io.files import shorten

MAX_ROWS = 10_000_000  # of a file
MAX_VALUES = 30_000_000  # of the columns that are read at once: 240 MB of double
MAX_BYTES = 1 << 29  # unpacked, of the columns that are read at once
MAX_TEXT = 10_000  # characters
_BATCH = 2  # rows of images: a packed file may hold the same large one in every row

Only = tuple[str, int]  # a column of integers, and the value that rows must have there


def read_columns(path: Path, columns: Sequence[str] | None, what: str, only: Only | None = None) -> pa.Table:
    """Read columns of a parquet file.

    Args:
        path: the file.
        columns: names; None: all.
        what: names the file in errors: "episodes table".
        only: keep the rows with this value; row groups that cannot hold it are not read.

    Raises:
        GenimaError: for a file that is missing, damaged or too large, and for columns that are not there.
    """
    with _opened(path, what) as file:
        names = _top_level(file, columns, what, path)
        if only:
            _top_level(file, [only[0]], what, path)
        groups = _groups(file, only)
        wanted = list(dict.fromkeys([*names, *([only[0]] if only else [])]))
        _require_small(file, groups, wanted, f"{what} {path}")
        table = file.read_row_groups(groups, columns=wanted, use_threads=False)
        return (_filter(table, only) if only else table).select(names)


def stream_column(path: Path, column: str, what: str, only: Only) -> Iterator[Any]:
    """Yield the values of a column row by row, of the rows that have a value elsewhere; few are in memory at once.

    Raises:
        GenimaError: as :func:`read_columns`.
    """
    with _opened(path, what) as file:
        _top_level(file, [column, only[0]], what, path)
        groups = _groups(file, only)
        for group in groups:
            _require_small(file, [group], [column], f"{what} {path}")
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=[column, only[0]], use_threads=False):
            for value in _filter(pa.Table.from_batches([batch]), only)[column]:
                yield value.as_py()


def stream_rows(path: Path, columns: Sequence[str], what: str, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield some rows of a file, by their numbers, in order; few are in memory at once.

    Raises:
        GenimaError: as :func:`read_columns`.
    """
    wanted = set(rows)
    with _opened(path, what) as file:
        _top_level(file, columns, what, path)
        first = 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if wanted & set(range(first, first + count)):
                _require_small(file, [group], columns, f"{what} {path}")
                at = first
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
                    chosen = [i for i in range(len(batch)) if at + i in wanted]
                    at += len(batch)
                    yield from batch.take(pa.array(chosen, pa.int64())).to_pylist() if chosen else ()
            first += count


def numbers(table: pa.Table, column: str, what: str, width: int | None = None) -> NDArray[Any]:
    """Return a column as an array (T,), or (T, width) of a column of lists.

    Raises:
        GenimaError: for other types, lists of another length and missing values.
    """
    values = table[column].combine_chunks()
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if width is None:
            raise GenimaError(f"{what}: column {column} holds lists, not numbers")
        lengths = np.asarray(pa.compute.fill_null(pa.compute.list_value_length(values), -1))
        if len(odd := lengths[lengths != width]):
            found = "a missing value" if odd[0] < 0 else f"{odd[0]} values"
            raise GenimaError(f"{what}: {column} has {found} in a row, its description has {width}")
        return _flat(values.flatten(), column, what).reshape(-1, width)
    if width is not None and width != 1:
        raise GenimaError(f"{what}: column {column} holds {kind}, not lists of {width} numbers")
    flat = _flat(values, column, what)
    return flat if width is None else flat[:, None]


def _flat(values: pa.Array, column: str, what: str) -> NDArray[Any]:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise GenimaError(f"{what}: column {column} holds {shorten(str(kind))}, not numbers")
    if values.null_count:
        raise GenimaError(f"{what}: column {column} has missing values")
    return np.asarray(values.to_numpy(zero_copy_only=False))


def texts(table: pa.Table, column: str, what: str) -> list[str]:
    """Return a column of texts.

    Raises:
        GenimaError: for another type and missing values.
    """
    if not is_text(table[column].type):
        raise GenimaError(f"{what}: column {column} holds {shorten(str(table[column].type))}, not text")
    if table[column].null_count:
        raise GenimaError(f"{what}: column {column} has missing values")
    found: list[str] = []
    for chunk in table[column].chunks:
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        longest = pa.compute.max(pa.compute.binary_length(encoded.dictionary)).as_py() or 0
        if longest > MAX_TEXT:
            raise GenimaError(f"{what}: column {column} has a text of {longest} bytes; at most {MAX_TEXT} are read")
        words = encoded.dictionary.to_pylist()
        if any(word is None for word in words):
            raise GenimaError(f"{what}: column {column} has missing values")
        found += [words[i] for i in encoded.indices.to_pylist()]
    return found


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column is of texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


@contextlib.contextmanager
def _opened(path: Path, what: str) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise GenimaError(f"{what} {path}: {'not a regular file' if path.exists() else 'missing'}")
    try:
        schema = pq.read_schema(path)
        words = [field.name for field in schema if is_text(field.type)]  # kept packed: one may stand in every row
        with pq.ParquetFile(path, read_dictionary=words) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise GenimaError(f"{what} {path}: {file.metadata.num_rows} rows; at most {MAX_ROWS} are read")
            yield file
    except GenimaError:
        raise
    except (OSError, KeyError, ValueError, TypeError, OverflowError, MemoryError, pa.ArrowException) as error:
        raise GenimaError(f"{what} {path}: damaged ({shorten(str(error), 200)}); fetch it again") from None


def _top_level(file: pq.ParquetFile, columns: Sequence[str] | None, what: str, path: Path) -> list[str]:
    """Return the names of the columns to read; each name is one top-level column, dots included."""
    there = file.schema_arrow.names
    if twice := sorted({name for name in there if there.count(name) > 1}):
        raise GenimaError(f"{what} {path}: column {twice[0]} appears twice")
    if columns is None:
        return list(there)
    if missing := [name for name in columns if name not in there]:
        raise GenimaError(f"{what} {path}: no column {', '.join(missing)}; it has {shorten(', '.join(there), 200)}")
    return list(columns)


def _groups(file: pq.ParquetFile, only: Only | None) -> list[int]:
    """Return the row groups that may hold the wanted rows, by the statistics in the footer."""
    every = list(range(file.metadata.num_row_groups))
    if only is None:
        return every
    column, value = only
    if not pa.types.is_integer(kind := file.schema_arrow.field(column).type):
        raise ValueError(f"column {column} holds {shorten(str(kind))}, not integers")
    leaf = next((i for i in range(len(file.schema)) if file.schema.column(i).path == column), None)
    if leaf is None:
        return every

    def may_hold(group: int) -> bool:
        statistics = file.metadata.row_group(group).column(leaf).statistics
        return statistics is None or not statistics.has_min_max or statistics.min <= value <= statistics.max

    return [group for group in every if may_hold(group)]


def _require_small(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], what: str) -> None:
    unpacked = values = 0
    for group in groups:
        row_group = file.metadata.row_group(group)
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if any(column.path_in_schema == name or column.path_in_schema.startswith(f"{name}.") for name in columns):
                unpacked += column.total_uncompressed_size
                values += column.num_values
    if unpacked > MAX_BYTES or values > MAX_VALUES:
        raise GenimaError(
            f"{what}: too large to read at once ({unpacked >> 20} MiB unpacked, {values} values; at most "
            f"{MAX_BYTES >> 20} MiB and {MAX_VALUES}); write it with smaller row groups"
        )


def _filter(table: pa.Table, only: Only) -> pa.Table:
    column, value = only
    return table.filter(pa.compute.equal(table[column], pa.scalar(value, pa.int64())))
