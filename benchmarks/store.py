"""Benchmark of map storage: a run's maps in other types, codecs and layouts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean, median
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, WrapperStore

from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.maps import array_options, open_array, read_maps
from pipeline.runs.store import commit_name
from pipeline.storage.objects import Storage

Maps = NDArray[Any]

DTYPES = ("float16", "uint8", "float32")
CODECS: dict[str, dict[str, Any] | None] = {"none": None, "zstd 3": {}} | {
    f"blosc {name} {level} {shuffle}": {"cname": name, "clevel": level, "shuffle": shuffle}
    for name, level in (("lz4", 5), ("zstd", 1), ("zstd", 3), ("zstd", 9))
    for shuffle in ("noshuffle", "shuffle", "bitshuffle")
}
LAYOUTS = ((1, 64), (1, 256), (1, 1024), (16, 256), (16, 1024))  # images per chunk, and per shard
_SINGLE_READS = 20  # single maps read per layout
_NAME = "maps"


@dataclass(frozen=True)
class CodecResult:
    """Result for one type and codec, with one map per chunk.

    Attributes:
        bytes: bytes per map, the mean over the methods.
        bytes_by_method: bytes per map of each method.
        encode_ms, decode_ms: CPU time per map.
        error: largest absolute difference from the run's own float16.
    """

    dtype: str
    codec: str
    bytes: float
    bytes_by_method: dict[str, float]
    encode_ms: float
    decode_ms: float
    error: float


@dataclass(frozen=True)
class LayoutResult:
    """Result for one layout on one storage, in the run's type and codec.

    Attributes:
        place: name of the storage.
        chunk, shard: images per chunk and per shard.
        objects: number of shard objects.
        encode_mib, put_mib, read_mib: MiB of raw float16 per second when encoding, writing the encoded objects, and reading all.
        one_ms: median time to read one map of an open array.
        one_requests, one_bytes: requests and bytes per map read.
    """

    place: str
    chunk: int
    shard: int
    objects: int
    encode_mib: float
    put_mib: float
    read_mib: float
    one_ms: float
    one_requests: float
    one_bytes: float


@dataclass(frozen=True)
class StoreResult:
    """Result of all codecs and layouts.

    Attributes:
        maps: different maps of the run; the layouts repeat them.
        side: of the maps, in pixels.
    """

    maps: int
    side: int
    codecs: tuple[CodecResult, ...]
    layouts: tuple[LayoutResult, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_store(run: RunStore, places: Mapping[str, Storage], images: int, maps: int) -> StoreResult:
    """Measure the maps of a run in all codecs and layouts.

    Args:
        places: name -> storage for the layouts, each in a new folder that is removed afterwards.
        images: most images of the run to use.
        maps: maps that every layout holds.

    Raises:
        InputError: if no shard of the run is done.
    """
    by_method = _maps(run, images)
    pooled = np.concatenate([*by_method.values()])
    codecs = [_measure_codec(by_method, dtype, codec) for dtype, codec in product(DTYPES, CODECS)]
    repeated = np.resize(pooled, (maps, *pooled.shape[1:]))
    layouts = [_measure_layout(name, storage, repeated, chunk, shard) for name, storage in places.items() for chunk, shard in LAYOUTS]
    return StoreResult(len(pooled), pooled.shape[-1], tuple(codecs), tuple(layouts))


def _maps(run: RunStore, images: int) -> dict[str, Maps]:
    """Read the maps (N, H, W) of the first images that are done, by method."""
    rows = [row for index in sorted(run.done()) for row in range(*run.storage.read_json(commit_name(index))["rows"])][:images]
    if not rows:
        raise InputError(f"{run.url}: no shard is done yet, so there are no maps to measure")
    store = run.storage.zarr("maps.zarr")
    return {method: read_maps(open_array(store, method), np.asarray(rows)) for method in run.metadata()["config"]["methods"]}


def _measure_codec(by_method: dict[str, Maps], dtype: str, codec: str) -> CodecResult:
    """Encode and decode the maps of every method with one codec."""
    scale = 255 if dtype == "uint8" else 1
    sizes, encode, decode, error = {}, 0.0, 0.0, 0.0
    for method, maps in by_method.items():
        exact = maps.astype(np.float32)
        values = np.rint(scale * exact).astype(dtype) if dtype == "uint8" else maps.astype(dtype)
        begin = time.process_time()
        objects = _encode(values, 1, len(maps), dtype=dtype, compressors=_codec(dtype, codec))
        middle = time.process_time()
        read = open_array(MemoryStore(objects), _NAME)[:]
        encode, decode = encode + middle - begin, decode + time.process_time() - middle
        error = max(error, float(np.abs(np.asarray(read, np.float32) / scale - exact).max()))
        sizes[method] = sum(len(data) for name, data in objects.items() if "/c/" in name) / len(maps)
    count = sum(map(len, by_method.values()))
    return CodecResult(dtype, codec, fmean(sizes.values()), sizes, 1e3 * encode / count, 1e3 * decode / count, error)


def _codec(dtype: str, codec: str) -> BloscCodec | ZstdCodec | None:
    options = CODECS[codec]
    if not options:
        return None if options is None else ZstdCodec(level=3)
    return BloscCodec(typesize=np.dtype(dtype).itemsize, **options)


def _encode(maps: Maps, chunk: int, shard: int, **changes: Any) -> dict[str, Buffer]:
    """Encode maps as a Zarr array; return its objects, name -> bytes."""
    memory: dict[str, Buffer] = {}
    chunks = {"chunks": (chunk, *maps.shape[1:])}
    zarr.open_group(MemoryStore(memory), mode="w", zarr_format=3)
    array = zarr.create_array(MemoryStore(memory), name=_NAME, **{**array_options(_NAME, maps.shape, shard), **chunks, **changes})
    array[:] = maps
    return memory


def _measure_layout(name: str, storage: Storage, maps: Maps, chunk: int, shard: int) -> LayoutResult:
    """Write the maps in one layout, then read all of them and single ones."""
    raw = maps.nbytes / 2**20
    begin = time.perf_counter()
    objects = {name: data.to_bytes() for name, data in _encode(maps, chunk, shard).items()}
    encoded = time.perf_counter()
    folder = f"bench-store-{uuid.uuid4().hex[:8]}"
    try:
        for key, data in objects.items():
            storage.write(f"{folder}/{key}", data)
        put = time.perf_counter()
        array = open_array(_CountingStore(storage.zarr(folder)), _NAME)
        opened = time.perf_counter()
        same = np.array_equal(np.asarray(array[:]), maps)
        read = time.perf_counter()
        if not same:
            raise RuntimeError(f"{storage.url(folder)} does not hold what was written")
        counted: Any = array.store  # Zarr opens a read-only copy
        counted.requests = counted.bytes = 0
        seconds = [_seconds_to_read(array, row) for row in np.linspace(0, len(maps) - 1, _SINGLE_READS, dtype=int)]
    finally:
        storage.fs.rm(storage.path(folder), recursive=True)
    return LayoutResult(
        place=name,
        chunk=chunk,
        shard=shard,
        objects=sum("/c/" in key for key in objects),
        encode_mib=raw / (encoded - begin),
        put_mib=raw / (put - encoded),
        read_mib=raw / (read - opened),
        one_ms=1e3 * median(seconds),
        one_requests=counted.requests / _SINGLE_READS,
        one_bytes=counted.bytes / _SINGLE_READS,
    )


def _seconds_to_read(array: zarr.Array[Any], row: int) -> float:
    begin = time.perf_counter()
    _ = array[row]
    return time.perf_counter() - begin


class _CountingStore(WrapperStore[Store]):
    """Zarr store that counts requests and bytes."""

    requests = 0
    bytes = 0

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        self._count([value])
        return value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        values = await super().get_partial_values(prototype, key_ranges)
        self._count(values)
        return values

    def _count(self, values: list[Buffer | None]) -> None:
        self.requests += len(values)
        self.bytes += sum(len(data) for data in values if data is not None)
