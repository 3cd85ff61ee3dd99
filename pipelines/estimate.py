"""`tithe estimate`: total and mean of a value over the corpus, from the sample, with standard errors and intervals.

The sample's own columns suffice: what each record's chance was, how often it was drawn, and its rank in the pass.
"""

import difflib
import io
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from tithe.transforms.errors import InputError, UsageError
from tithe.transforms.files import absolute, exists, open_source
from tithe.transforms.kernels import estimators
from tithe.transforms.loss_file import LOSS, SUFFIXES
from tithe.transforms.vectors import read_json

CONFIDENCE = 0.95
PLACE = ("tithe_file", "tithe_position")
"""What tells records apart where the configuration names no id."""

Columns = dict[str, list[Any]]


def estimate_from(output: str, losses: str, column: str | None = None) -> dict[str, Any]:
    """Estimates the total and the mean of a value over the corpus.

    Args:
        output: an output folder with a finished sample.
        losses: a column of the sample, or a file (.parquet, .csv, .jsonl) with the sample's ids and a column of values.
        column: of the file; `loss` where None.

    Returns:
        JSON-able: `column`, `method`, `records` and `corpus_records`, `unreachable` (records that the draw gave no
        chance), `confidence`, and under `total` and `mean` each `estimate`, `standard_error` (None where the sample
        cannot tell), `low` and `high`.

    Raises:
        UsageError: no such output folder, file or column.
        InputError: values that are missing or no finite numbers, rows that do not fit the sample; each is named.
    """
    output = absolute(output).rstrip("/")
    if not exists(f"{output}/manifest.json"):
        raise UsageError(f"{output} has no manifest.json; name the output folder (output.path) of a finished run")
    manifest: dict[str, Any] = read_json(f"{output}/manifest.json")
    sample = _read_sample(output, manifest)
    keys = id_columns(manifest)
    names = _names(sample, keys)
    if losses.endswith(SUFFIXES):
        values = file_values(_read(absolute(losses)), losses, column or LOSS, keys, names)
    else:
        if column is not None:
            raise UsageError(
                f"--column {column} goes with a file of losses, and {losses!r} is none ({', '.join(SUFFIXES)})"
            )
        values = numbers(_column(sample, losses, f"the sample in {output}"), names, f"column {losses!r}")
    drawn = drawn_sample(sample, manifest)
    found = estimators.estimate(values, drawn, CONFIDENCE)
    records = int(manifest["sample"]["corpus_records"])
    everyone = manifest["sample"]["records"] == records
    return {
        "column": losses if column is None else f"{losses}: {column}",
        "method": manifest["sample"]["method"],
        "records": len(values),
        "corpus_records": records,
        "unreachable": 0 if everyone else records - int(manifest["proxy"]["positive"]),
        "confidence": CONFIDENCE,
        "total": _facts(found, 1),
        "mean": _facts(found, records),
    }


def _facts(found: estimators.Estimate, records: int) -> dict[str, float | None]:
    parts = {"estimate": found.total, "standard_error": found.standard_error, "low": found.low, "high": found.high}
    return {name: value / records if math.isfinite(value) else None for name, value in parts.items()}


def drawn_sample(sample: Columns, manifest: dict[str, Any]) -> estimators.Drawn:
    """Returns what the estimators need of a sample as it was read."""
    rows = len(sample["tithe_probability"])
    # Where the sample is the whole corpus nothing was left to chance, whatever the method.
    everyone = rows == manifest["sample"]["corpus_records"] == manifest["sample"]["certain"]
    return estimators.Drawn(
        "everything" if everyone else manifest["sample"]["method"],
        np.array(sample["tithe_probability"], np.float64),
        np.array(sample["tithe_multiplicity"], np.int64),
        np.array(sample.get("tithe_order", [-1] * rows), np.int64),
        np.array(sample["tithe_proxy"], np.float64),
        float(manifest["proxy"]["total"]),
    )


def id_columns(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Returns the columns that tell the sample's records apart: the configuration's id, or file and position."""
    field = manifest["configuration"]["input"]["id"]
    return (field,) if field else PLACE


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_sample(output: str, manifest: dict[str, Any]) -> Columns:
    paths = [f"{output}/{part['name']}" for part in manifest["sample"]["parts"]]
    parts = [_read(path) for path in paths]
    rows = sum(len(next(iter(part.values()), [])) for part in parts)
    if not rows:
        raise InputError(f"{output}: the sample is empty, so nothing can be estimated from it")
    # One record may lack a key that others have; a part may lack it altogether.
    names = dict.fromkeys(name for part in parts for name in part)
    sizes = [len(part["tithe_probability"]) for part in parts]
    return {n: [v for p, size in zip(parts, sizes, strict=True) for v in p.get(n, [None] * size)] for n in names}


def _read(path: str) -> Columns:
    """The columns of a file; all of a CSV file's are text, so that an id stays as it is written."""
    if not exists(path):
        raise UsageError(f"{path}: no such file")
    try:
        with open_source(path) as source:
            if path.endswith(".parquet"):
                table = pyarrow.parquet.read_table(source)
            elif path.endswith(".csv"):
                data = source.read()
                header = pyarrow.csv.open_csv(io.BytesIO(data)).schema.names
                options = pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True
                )
                table = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
            else:
                rows = [json.loads(line) for line in source.read().splitlines() if line.strip()]
                names = dict.fromkeys(name for row in rows for name in row)
                return {name: [row.get(name) for row in rows] for name in names}
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _column(columns: Columns, name: str, where: str) -> list[Any]:
    if name in columns:
        return columns[name]
    near = difflib.get_close_matches(name, columns, 1, 0.5)
    meant = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(list(columns)[:12])}"
    raise UsageError(f"{where} has no column {name!r}{meant}")


# -- values ------------------------------------------------------------------------------------------------------------


def _names(columns: Columns, keys: tuple[str, ...]) -> list[str]:
    """What each row is called: its id, or `file at position`."""
    return [" at ".join(map(str, key)) for key in zip(*(columns[name] for name in keys), strict=True)]


def numbers(values: list[Any], names: list[str], what: str) -> NDArray[np.float64]:
    """Returns values as float64, (n,); text that is a number counts as one.

    Raises:
        InputError: a value that is missing, or no finite number; it names the row.
    """
    out = np.empty(len(values))
    for row, value in enumerate(values):
        if value is None or value == "":
            raise InputError(f"{what}: the record {names[row]} has no value; every record of the sample needs one")
        try:
            out[row] = float(value)
        except (TypeError, ValueError):
            out[row] = np.nan
        if not np.isfinite(out[row]):
            raise InputError(f"{what}: the record {names[row]} has {str(value)[:80]!r}, which is not a finite number")
    return out


def file_values(
    columns: Columns, path: str, column: str, keys: tuple[str, ...], names: list[str]
) -> NDArray[np.float64]:
    """Returns a file's values in the order of the sample, float64, (n,).

    Args:
        columns: of the file.
        path: its name for errors.
        column: of the values.
        keys: columns that tell records apart.
        names: of the sample's rows, in its order.

    Raises:
        UsageError: a column that the file lacks.
        InputError: rows of the sample that the file lacks, others, repeated ones, and values as in `numbers`.
    """
    for key in (*keys, column):
        _column(columns, key, path)
    given = _names(columns, keys)
    repeated = [name for name, times in Counter(given).items() if times > 1]
    wanted, found = set(names), set(given)
    missing = [name for name in names if name not in found]
    extra = [name for name in given if name not in wanted]
    id_words = " and ".join(keys)
    for what, some in (("repeats", repeated), ("lacks", missing), ("has, though they are not in the sample,", extra)):
        if some:
            raise InputError(
                f"{path} {what} {len(some):,} records ({id_words} {', '.join(some[:3])}); "
                "give one row for each record of the sample"
            )
    values = numbers(columns[column], given, f"{path}, column {column!r}")
    row_of = {name: row for row, name in enumerate(given)}
    return values[[row_of[name] for name in names]]


# -- telling -----------------------------------------------------------------------------------------------------------


def told(found: dict[str, Any]) -> str:
    """Returns what the command prints of an estimate."""
    lines = [
        f"{found['column']} over {found['corpus_records']:,} records, "
        f"estimated from {found['records']:,} of them ({found['method']})"
    ]
    for name in ("total", "mean"):
        some = found[name]
        if some["standard_error"] is None:
            lines.append(f"  {name:<6} {_number(some['estimate'])}; the sample is too small for a standard error")
            continue
        lines.append(
            f"  {name:<6} {_number(some['estimate'])} +- {_number(some['standard_error'], 3)}   "
            f"{found['confidence']:.0%} interval {_number(some['low'])} to {_number(some['high'])}"
        )
    if found["unreachable"]:
        lines.append(
            f"  {found['unreachable']:,} records had no chance to be drawn (proxy 0): what they hold is not in the "
            "estimate; set score.floor above 0 to reach them"
        )
    return "\n".join(lines)


def _number(value: float, digits: int = 6) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:,.{digits}g}"
