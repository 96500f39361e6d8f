"""Reading data that somebody else wrote: `.npy` arrays and `.csv` tables of points."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from sdekit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["read_points"]


def read_points(
    path: Path,
    *,
    whole: bool = False,
    hint: str = "save floating numbers",
    name: str = "--data",
) -> Tensor:
    """The samples of a file as float32 [(n, *dims)].

    A `.csv` file has one sample a line, numbers between commas, below a line of names or none.
    An `.npy` file holds an array of floating numbers, samples first. A single column is (n, 1).

    Args:
        path: the file.
        whole: read whole numbers too: an array of integers, or a table that holds nothing else,
            comes as int64.
        hint: what the refusal of an array of integers says.
        name: what messages call the file.

    Raises:
        DataError: no such file, another format, no sample, or values that are no finite numbers;
            the line or the row is named.
    """
    import numpy as np
    import torch

    readers = {".npy": _npy, ".csv": _csv}
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{name} {path}: {what}")
    if path.suffix.lower() not in readers:
        raise DataError(f"{name} {path}: only .npy and .csv files are read")
    try:
        array = readers[path.suffix.lower()](path, name)
        if path.suffix.lower() == ".csv" and whole and bool((array == array.round()).all()):
            array = array.astype(np.int64)
    except OSError as error:
        raise DataError(f"{name} {path}: {error.strerror or error}") from None
    if array.dtype.kind not in ("fiu" if whole else "f"):
        raise DataError(f"{name} {path} holds {array.dtype}; {hint}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 0 or array.size == 0:
        raise DataError(f"{name} {path} holds no sample (shape {array.shape})")
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        rows = np.flatnonzero(bad)[:5].tolist()
        raise DataError(f"{name} {path} holds NaN or infinity in {bad.sum()} rows, first: {rows}")
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _npy(path: Path, name: str) -> np.ndarray:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        why = "it holds Python objects" if "pickle" in str(error) else str(error)
        raise DataError(f"{name} {path} is no .npy array of numbers: {why}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name} {path} is an archive of arrays; save one array as .npy")
    return array


def _csv(path: Path, name: str) -> np.ndarray:
    import numpy as np

    rows: list[list[float]] = []
    names: list[str] | None = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for line in reader:
                if not any(word.strip() for word in line):
                    continue
                row = _numbers(line)
                if row is None and not rows and names is None and not any(map(_is_number, line)):
                    names = line
                    continue
                if row is None:
                    raise DataError(
                        f"{name} {path}, line {reader.line_num}: {','.join(line)!r:.60} "
                        "is not numbers between commas"
                    )
                if rows and len(row) != len(rows[0]):
                    raise DataError(
                        f"{name} {path}, line {reader.line_num}: {len(row)} numbers, "
                        f"earlier lines have {len(rows[0])}"
                    )
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} {path} is no CSV table: {error}") from None
    return np.array(rows, dtype=np.float64)


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _is_number(word: str) -> bool:
    return _numbers([word]) is not None
