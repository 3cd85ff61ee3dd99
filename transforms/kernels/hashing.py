"""Chance without a generator: every random number is a hash of (seed, role, record id).

A record's *id hash* has no seed in it; it orders the rows of a part. Draws, batches and seeding mix it again with a key
of their own, so that one role says nothing about another. The mixer is the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): a bijection of 64 bits, so different integers
never collide.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def mix(z: U64) -> U64:
    """Returns the SplitMix64 finaliser of each element, uint64 in and out, any shape."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def role_key(seed: int, role: str, counter: int = 0) -> int:
    """Returns the 64-bit key of one use of chance: a seed, what it is for, and a running number (0 <= result <
    2**64).
    """
    digest = hashlib.blake2b(f"{seed}/{role}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def role_hash(id_hash: U64, seed: int, role: str, counter: int = 0) -> U64:
    """Returns the hash of (seed, role, counter, record), uint64, of the shape of `id_hash`."""
    key = np.uint64(role_key(seed, role, counter))
    with np.errstate(over="ignore"):
        return mix(mix(id_hash + key) ^ key)


def uniform(hashes: U64) -> NDArray[np.float64]:
    """Returns hashes as numbers strictly between 0 and 1, float64: the odd multiples of 2**-53."""
    # 52 bits and a half: with 53 the largest would round up to 1.
    return ((hashes >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def hash_integers(values: NDArray[np.int64] | U64) -> U64:
    """Returns the id hash of integer ids: a function of the value, whatever its width."""
    return mix(values.astype(np.uint64, copy=False))


def hash_bytes(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> U64:
    """Returns the id hash of byte strings laid end to end.

    Args:
        data: all bytes, uint8, (total,).
        offsets: string i is `data[offsets[i]:offsets[i + 1]]`; int64, (n + 1,).

    Eight bytes at a time are folded into the hash of the length, for all strings together; a string that has ended is
    left alone.
    """
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = mix(mix(lengths.astype(np.uint64)))
    rows = np.arange(len(lengths))
    step = np.arange(8)
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    for at in range(0, int(lengths.max(initial=0)), 8):
        rows = rows[lengths[rows] > at]
        chunk = padded[starts[rows, None] + at + step]
        chunk[at + step >= lengths[rows, None]] = 0
        words = np.ascontiguousarray(chunk).view("<u8")[:, 0].astype(np.uint64, copy=False)
        hashes[rows] = mix(hashes[rows] ^ words)
    return hashes


def hash_text(text: str) -> int:
    """Returns the id hash of one string (its UTF-8 bytes)."""
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    return int(hash_bytes(data, np.array([0, len(data)], np.int64))[0])
