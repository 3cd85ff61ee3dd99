"""Reading a split: batches of records with their positions, and the rows that could not be read."""

from collections.abc import Iterator, Sequence

from tithe.transforms.records_batch import BadFileError, BadRecord, Batch, reading
from tithe.transforms.records_csv import read_csv
from tithe.transforms.records_lines import read_jsonl, read_text
from tithe.transforms.records_parquet import read_parquet
from tithe.transforms.splits import Split

__all__ = ["BadFileError", "BadRecord", "Batch", "read_split"]


def read_split(
    split: Split, format: str, columns: Sequence[str] | None, max_record_bytes: int, batch_rows: int = 8192
) -> Iterator[Batch]:
    """The records of a split, in the order of its pieces, in batches that depend on the input alone.

    A batch belongs to one piece and holds at most `batch_rows` records and about 4 MB; a record of more than
    `max_record_bytes` is a bad one and never held whole (lines) or decoded to Python (Parquet). `columns` are those
    that are asked for, None for all; what a format does not store by column (jsonl) is read whole.

    Raises InputError for a column that a Parquet or CSV file lacks, BadFileError for a file that cannot be read on.
    """
    for index, piece in enumerate(split.pieces):
        with reading(piece):
            if format == "parquet":
                yield from read_parquet(piece, index, columns, max_record_bytes, batch_rows)
            elif format == "csv":
                yield from read_csv(piece, index, columns, max_record_bytes, batch_rows)
            elif format == "jsonl":
                yield from read_jsonl(piece, index, max_record_bytes, batch_rows)
            else:
                yield from read_text(piece, index, max_record_bytes, batch_rows)
