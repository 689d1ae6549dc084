"""Saliency maps in Zarr v3.

There is one array per method, one chunk per image, and one Zarr shard per shard of the plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.errors import ContainsArrayError
from zarr.storage import MemoryStore

from pipeline.errors import InputError
from pipeline.runs.ome import ome_attributes

Arrays = Mapping[str, NDArray[Any]]

STAGES = "hdm_stages"
EVIDENCE = "evidence"  # bool, the pieces of evidence; all other arrays are float16

_DTYPES = {EVIDENCE: "bool"}
_AXES = {STAGES: ("stage", "y", "x"), EVIDENCE: ("piece", "y", "x")}


def array_shapes(
    methods: tuple[str, ...],
    images: int,
    size: tuple[int, int],
    stages: int | None,
    ranks: int = 1,
    pieces: int | None = None,
    signed: tuple[str, ...] = (),
) -> dict[str, tuple[int, ...]]:
    """Return array name -> shape of a run, whose maps have `size`, height and width.

    There is an axis `rank` if several classes per image are explained.

    Args:
        signed: methods whose signed maps are stored beside their maps.
    """
    rank_axis = (ranks,) if ranks > 1 else ()
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*methods, *map(signed_name, signed)), (images, *rank_axis, *size))
    if stages is not None:
        shapes[STAGES] = (images, *rank_axis, stages, *size)
    if pieces is not None:
        shapes[EVIDENCE] = (images, *rank_axis, pieces, *size)
    return shapes


def signed_name(method: str) -> str:
    """Return the name of the array of a method's signed maps."""
    return f"{method}_signed"


def dimension_names(name: str, dimensions: int) -> tuple[str, ...]:
    """Return the names of an array's axes."""
    map_axes = _AXES.get(name, ("y", "x"))
    return ("image", "rank", *map_axes) if dimensions > len(map_axes) + 1 else ("image", *map_axes)


def create_arrays(store: Store, shapes: Mapping[str, tuple[int, ...]], shard_size: int) -> None:
    """Write the metadata of a run's arrays, except of arrays that exist.

    The group has those of OME-Zarr.

    Raises:
        InputError: if an array exists in another shape.
    """
    attributes = ome_attributes({name: dimension_names(name, len(shape)) for name, shape in shapes.items()})
    group = zarr.open_group(store, mode="a", zarr_format=3, attributes=attributes)  # those of a group that exists stay as they are
    for name, shape in shapes.items():
        try:
            group.create_array(name, **array_options(name, shape, shard_size))
        except ContainsArrayError:
            existing = group[name]
            if not isinstance(existing, zarr.Array) or existing.shape != shape or existing.shards != (shard_size, *shape[1:]):
                raise InputError(f"maps.zarr/{name} was left by another run; choose another name or remove the run's folder") from None


def array_options(name: str, shape: tuple[int, ...], shard_size: int) -> dict[str, Any]:
    """Return the arguments with which Zarr creates an array of a run."""
    dtype = np.dtype(_DTYPES.get(name, "float16"))
    return {
        "shape": shape,
        "dtype": dtype.name,
        "chunks": (1, *shape[1:]),
        "shards": (shard_size, *shape[1:]),
        "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=dtype.itemsize),
        "fill_value": 0,
        "dimension_names": dimension_names(name, len(shape)),
    }


def encode_shard(index: int, start: int, shard_size: int, arrays: Arrays) -> dict[str, bytes]:
    """Encode a shard as one object per array.

    The objects are encoded in memory, so that checksums are taken before storage can change a byte, and storage receives whole objects
    only. A shard of zeros is an object, too: Zarr would leave it out, and a missing object must always mean damage.

    Args:
        index: of the shard.
        start: the shard's first row.
        arrays: name -> the shard's rows of the array.

    Returns:
        Name below the store of `create_arrays` -> bytes.
    """
    memory: dict[str, Buffer] = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, values in arrays.items():
            array = zarr.create_array(
                MemoryStore(memory), name=name, **array_options(name, (start + len(values), *values.shape[1:]), shard_size)
            )
            array[start:] = values
    names = {name: shard_object(name, index, values.ndim) for name, values in arrays.items()}
    return {key: memory[key].to_bytes() for key in names.values()}


def shard_object(name: str, index: int, dimensions: int) -> str:
    """Return the path of one shard of an array, below the store of `create_arrays`."""
    return "/".join([name, "c", str(index), *["0"] * (dimensions - 1)])


def decode_shard(name: str, metadata: bytes, index: int, data: bytes, rows: range) -> NDArray[Any]:
    """Decode a shard's object of an array that `encode_shard` encoded.

    The bytes can be checked before they are decoded, and are read once.

    Args:
        metadata: the content of the array's zarr.json.
        data: the content of the object at `shard_object`.
        rows: the shard's rows of the array.
    """
    to_buffer = default_buffer_prototype().buffer.from_bytes
    dimensions = len(json.loads(metadata)["shape"])
    objects = {f"{name}/zarr.json": to_buffer(metadata), shard_object(name, index, dimensions): to_buffer(data)}
    array = zarr.open_array(MemoryStore(objects), path=name, mode="r", zarr_format=3)
    return np.asarray(array[rows.start : rows.stop])


def open_array(store: Store, method: str) -> zarr.Array[Any]:
    """Open a method's array for reading."""
    array = zarr.open_group(store, mode="r", zarr_format=3)[method]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{method} is not an array")
    return array


def read_map(store: Store, method: str, row: int, rank: int = 0) -> NDArray[np.float32]:
    """Read one image's map (H, W), or its stages or pieces (S, H, W), of a rank."""
    return map_at(open_array(store, method), row, rank)


def map_at(array: zarr.Array[Any], row: int, rank: int = 0) -> NDArray[np.float32]:
    """Read one image's map of an open array, as `read_map`."""
    index = (row, rank) if "rank" in dimension_names(array.basename, array.ndim) else row
    return np.asarray(array[index], dtype=np.float32)


def read_maps(array: zarr.Array[Any], rows: NDArray[np.int64], every_rank: bool = False) -> NDArray[Any]:
    """Read the maps (N, H, W) of several images, of rank 0.

    Consecutive rows are read as one slice.

    Args:
        every_rank: read the maps of all ranks, with the array's own axes.
    """
    rank_index = (0,) if "rank" in dimension_names(array.basename, array.ndim) and not every_rank else ()
    consecutive = bool((np.diff(rows) == 1).all())
    maps = array[(slice(rows[0], rows[-1] + 1), *rank_index)] if consecutive else array.oindex[(rows, *rank_index)]
    return np.asarray(maps)
