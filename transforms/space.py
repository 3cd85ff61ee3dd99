"""The space in which distances are taken: vectors less a fixed origin, and the labels beside them.

vectors/ keeps the plain embedding and the label; what is fixed only once the whole corpus is embedded (the origin, the
labels' vocabulary and scale) is applied when a block is read.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tithe.transforms import vectors
from tithe.transforms.files import open_bytes, write_atomically
from tithe.transforms.kernels import exact
from tithe.transforms.parallel import once_a_process


@dataclass(frozen=True)
class Space:
    """How a stored block becomes the block that is clustered.

    Attributes:
        origin: subtracted from the embedding, float32, (d,), and from a text label's, (e,), behind it.
        scale: factor of each stored component, float32, (d + e,): 1 for the embedding.
        classes: hashes of the labels of kind `class`, ascending, uint64, (c,); they add c components, one of them
            `weight`.
        number: mean and factor of a label of kind `number`, float64, (2,), or (0,) where there is none.
        weight: the value of a class's component.
        magnitude: every component of a block is below this in magnitude.
        ordinary: and those of most rows below this.
    """

    origin: NDArray[np.float32]
    scale: NDArray[np.float32]
    classes: NDArray[np.uint64]
    number: NDArray[np.float64]
    weight: float
    magnitude: float
    ordinary: float

    @property
    def dimension(self) -> int:
        """Components of a block."""
        return len(self.origin) + len(self.classes) + len(self.number) // 2

    @property
    def exponent(self) -> int:
        """Of the grid on which sums of blocks are exact."""
        return exact.grid_exponent(self.magnitude, self.ordinary)

    def apply(self, rows: NDArray[np.void], stored: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the block, float32, (n, dimension), of stored vectors, (n, d + e), and their rows; where there is no
        label, the block takes the place of the stored vectors.
        """
        width = len(self.origin)
        out = stored if self.dimension == width else np.empty((len(stored), self.dimension), np.float32)
        np.subtract(stored, self.origin, out=out[:, :width])
        if not (self.scale == 1).all():
            out[:, :width] *= self.scale
        if len(self.classes):
            out[:, width:] = 0
            out[np.arange(len(rows)), width + np.searchsorted(self.classes, rows["label"])] = self.weight
        if len(self.number):
            out[:, width] = (np.ascontiguousarray(rows["label"]).view("<f8") - self.number[0]) * self.number[1]
        return out


def write_space(path: str, space: Space) -> None:
    """Writes a space as .npz."""
    buffer = BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(space).items()}
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


@once_a_process(4)
def read_space(path: str) -> Space:
    """Returns the space of a finished embed stage; read once in a process."""
    with open_bytes(path) as file, np.load(BytesIO(file.read())) as data:
        values: dict[str, Any] = dict(data)
    return Space(**{**values, **{name: float(values[name]) for name in ("weight", "magnitude", "ordinary")}})


@dataclass(frozen=True)
class Reader:
    """Reads blocks of a split in the space; what every pass over vectors/ is given.

    Attributes:
        folder: of vectors/, with a folder for each split.
        space_path: of the space.
    """

    folder: str
    space_path: str

    def parts(self, key: str) -> list[vectors.Part]:
        """Returns the parts of the split with this key."""
        return vectors.parts_of(f"{self.folder}/{key}")

    def blocks(self, part: vectors.Part) -> Any:
        """Yields (rows, block) of a part, at most `vectors.chunk_rows` at a time."""
        return _blocks(read_space(self.space_path), part, 0, vectors.HASHES)

    def range_blocks(self, key: str, ranges: list[tuple[int, int]]) -> Any:
        """Yields (part number, rows, block) of a split's rows in the ranges of hashes."""
        space = read_space(self.space_path)
        for number, part in enumerate(self.parts(key)):
            for low, high in ranges:
                for rows, block in _blocks(space, part, low, high):
                    yield number, rows, block


def _blocks(space: Space, part: vectors.Part, low: int, high: int) -> Any:
    for _, rows, stored in vectors.chunks(part, *vectors.hash_range(part, low, high)):
        yield rows, space.apply(rows, stored)
