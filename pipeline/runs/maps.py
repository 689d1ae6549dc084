"""Maps in Zarr v3: an array a method, a chunk an image, a shard object a shard of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.errors import ContainsArrayError
from zarr.storage import MemoryStore

from pipeline.errors import InputError

Arrays = Mapping[str, NDArray[np.float16]]

STAGES = "hdm_stages"

_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2)


def array_shapes(methods: tuple[str, ...], images: int, side: int, stages: int | None, ranks: int = 1) -> dict[str, tuple[int, ...]]:
    """The arrays of a run and their shapes; the axis `rank` is there where several classes of an image are explained."""
    several = (ranks,) if ranks > 1 else ()
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(methods, (images, *several, side, side))
    if stages is not None:
        shapes[STAGES] = (images, *several, stages, side, side)
    return shapes


def dimension_names(name: str, dimensions: int) -> tuple[str, ...]:
    """The names of an array's axes."""
    own = ("stage", "y", "x") if name == STAGES else ("y", "x")
    return ("image", "rank", *own) if dimensions > len(own) + 1 else ("image", *own)


def create_arrays(store: Store, shapes: Mapping[str, tuple[int, ...]], shard_size: int) -> None:
    """Writes the metadata of a run's arrays; arrays that are there already are left alone.

    Raises:
        InputError: if an array is there in another shape.
    """
    group = zarr.open_group(store, mode="a", zarr_format=3)
    for name, shape in shapes.items():
        try:
            group.create_array(name, **array_options(name, shape, shard_size))
        except ContainsArrayError:
            there = group[name]
            if not isinstance(there, zarr.Array) or there.shape != shape or there.shards != (shard_size, *shape[1:]):
                raise InputError(f"maps.zarr/{name} was left by another run; choose another name or remove the run's folder") from None


def array_options(name: str, shape: tuple[int, ...], shard_size: int) -> dict[str, Any]:
    """How an array of a run is stored."""
    return {
        "shape": shape,
        "dtype": "float16",
        "chunks": (1, *shape[1:]),
        "shards": (shard_size, *shape[1:]),
        "compressors": _CODEC,
        "fill_value": 0,
        "dimension_names": dimension_names(name, len(shape)),
    }


def encode_shard(index: int, start: int, shard_size: int, arrays: Arrays) -> dict[str, bytes]:
    """A shard's objects, one an array: their names below the store of `create_arrays`, and their bytes.

    Encoded in memory, so that their checksums are those of what was meant, and storage sees whole objects only. A shard that holds only
    zeros is an object, too: that one is missing must never mean anything.
    """
    memory: dict[str, Buffer] = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in arrays.items():
            array = zarr.create_array(
                MemoryStore(memory), name=name, **array_options(name, (start + len(values), *values.shape[1:]), shard_size)
            )
            array[start:] = values
    names = {name: "/".join([name, "c", str(index), *["0"] * (values.ndim - 1)]) for name, values in arrays.items()}
    return {key: memory[key].to_bytes() for key in names.values()}


def open_array(store: Store, method: str) -> zarr.Array[Any]:
    """A method's array, to read from."""
    array = zarr.open_group(store, mode="r", zarr_format=3)[method]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{method} is no array")
    return array


def read_map(store: Store, method: str, row: int, rank: int = 0) -> NDArray[np.float32]:
    """One image's map (H, W), or its stages (S, H, W), for one of the classes that were explained."""
    array = open_array(store, method)
    place = (row, rank) if "rank" in dimension_names(method, array.ndim) else row
    return np.asarray(array[place], dtype=np.float32)


def read_maps(array: zarr.Array[Any], rows: NDArray[np.int64], every_rank: bool = False) -> NDArray[np.float16]:
    """The maps of several images (N, H, W), of the only or likeliest class; whole shards are read where the rows are.

    Args:
        every_rank: of all classes that were explained, with the array's own axes.
    """
    first = (0,) if "rank" in dimension_names(array.basename, array.ndim) and not every_rank else ()
    close = bool((np.diff(rows) == 1).all())
    found = array[(slice(rows[0], rows[-1] + 1), *first)] if close else array.oindex[(rows, *first)]
    return np.asarray(found, dtype=np.float16)
