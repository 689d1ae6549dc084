"""Contract of Storage and of a run on it: on a disk, on a real S3 server, and in fsspec's memory://.

memory:// has no versions to compare, and its create-only write is not atomic: a run is refused on storage like this.
"""

from __future__ import annotations

import errno
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipeline.config.schema import RunConfig
from pipeline.runs import RunStore
from pipeline.runs.maps import array_shapes, create_arrays, dimension_names, encode_shard, read_map
from pipeline.storage.objects import Storage, to_json
from tests.support.plans import configuration, plan_of, refused, results, write_all
from tests.support.s3_server import S3


@dataclass(frozen=True)
class Place:
    """A place for runs, with its fsspec options."""

    url: str
    options: dict[str, Any]

    def configuration(self, **keys: Any) -> RunConfig:
        return configuration(**({"output": self.url, "storage": self.options} | keys))


@pytest.fixture(params=["path", "file", "memory", pytest.param("s3", marks=pytest.mark.server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        root = f"/{uuid.uuid4().hex}"
        yield Place(f"memory:/{root}/runs", {})
        memory = fsspec.filesystem("memory")
        if memory.exists(root):
            memory.rm(root, recursive=True)
    elif request.param == "s3":
        s3: S3 = request.getfixturevalue("s3")
        yield Place(f"{s3.url}/a folder/runs", s3.storage)
    else:
        yield Place(f"{'file://' if request.param == 'file' else ''}{tmp_path}/a folder/runs", {})


@pytest.fixture
def storage(place: Place) -> Storage:
    return Storage(place.url, place.options)


# Objects


def test_what_is_written_is_read_back(storage: Storage) -> None:
    for name, data in (("a", b"1"), ("deep/er/b.bin", bytes(range(256))), ("empty", b""), ("with space/é.json", b"{}")):
        storage.write(name, data)
        assert storage.read(name) == data
        assert storage.exists(name)


def test_writing_again_replaces_the_whole_object(storage: Storage) -> None:
    storage.write("a", b"a long text")
    storage.write("a", b"short")
    assert storage.read("a") == b"short"


def test_an_object_that_is_not_there(storage: Storage) -> None:
    assert not storage.exists("nowhere")
    assert not storage.exists("no/where")
    with pytest.raises(FileNotFoundError):
        storage.read("nowhere")


def test_create_writes_once_and_never_again(storage: Storage) -> None:
    assert storage.create("commits/1.json", b"first") is True
    assert storage.create("commits/1.json", b"second") is False
    assert storage.read("commits/1.json") == b"first"
    storage.write("commits/2.json", b"written")
    assert storage.create("commits/2.json", b"created") is False
    assert storage.read("commits/2.json") == b"written"


def test_create_sees_what_others_have_created(place: Place) -> None:
    one, other = Storage(place.url, place.options), Storage(place.url, place.options)
    assert not other.exists("a")
    assert one.create("a", b"one")
    assert other.exists("a")
    assert not other.create("a", b"other")
    assert other.read("a") == b"one"


def test_all_objects_below_a_url_are_removed_and_no_other(place: Place, storage: Storage) -> None:
    inner = Storage(f"{place.url}/scratch", place.options)
    for each in (storage, inner):
        each.write("deep/er/a", b"1")
    inner.write("b", b"2")
    for _ in range(2):  # the second time there is nothing
        inner.remove_all()
        assert [inner.exists(name) for name in ("deep/er/a", "b")] == [False, False]
    assert storage.read("deep/er/a") == b"1"


def test_one_listing_gives_the_names_in_order(storage: Storage) -> None:
    assert storage.names("commits") == []
    for name in ("000002.json", "000000.json", "000010.json"):
        storage.create(f"commits/{name}", b"{}")
    assert storage.names("commits") == ["000000.json", "000002.json", "000010.json"]
    assert [name for name in storage.names("") if not name.endswith(".json")] == ["commits"]


def test_nothing_is_left_beside_an_object(storage: Storage) -> None:
    for _ in range(2):
        storage.create("a/x", b"1")
        storage.write("a/y", b"2")
    assert sorted(path.rpartition("/")[2] for path in storage.fs.find(storage.path(""))) == ["x", "y"]


def test_json_has_the_same_bytes_for_the_same_value(storage: Storage) -> None:
    value = {"b": [1, 2.5, None], "a": {"é": "ü"}}
    storage.write("a.json", to_json(value))
    assert storage.read_json("a.json") == value
    assert to_json({"a": {"é": "ü"}, "b": [1, 2.5, None]}) == storage.read("a.json")


def test_it_travels_to_another_process_and_its_url_leads_back(storage: Storage) -> None:
    storage.write("a", b"1")
    for again in (pickle.loads(pickle.dumps(storage)), Storage(storage.url(""), storage.options)):
        assert again.read("a") == b"1"
        assert again.url("a") == storage.url("a")
    with fsspec.open(storage.url("a"), "rb", **storage.options) as file:
        assert file.read() == b"1"


# Arrays


def put(storage: Storage, objects: dict[str, bytes]) -> None:
    for name, data in objects.items():
        storage.write(f"maps.zarr/{name}", data)


def test_arrays_are_written_shard_by_shard(storage: Storage) -> None:
    shapes = {"hdm": (3, 4, 4), "hdm_stages": (3, 2, 4, 4)}
    arrays = {name: np.random.default_rng(0).random(shape).astype(np.float16) for name, shape in shapes.items()}
    create_arrays(storage.zarr("maps.zarr"), shapes, 2)
    for index, start in enumerate((0, 2)):
        objects = encode_shard(index, start, 2, {name: part[start : start + 2] for name, part in arrays.items()})
        assert list(objects) == [f"hdm/c/{index}/0/0", f"hdm_stages/c/{index}/0/0/0"]
        put(storage, objects)
    for name, array in arrays.items():
        for row in range(3):
            np.testing.assert_array_equal(read_map(storage.zarr("maps.zarr"), name, row), array[row].astype(np.float32))


def test_arrays_of_several_classes_have_an_axis_for_their_rank(storage: Storage) -> None:
    shapes = array_shapes(("hdm", "dm"), 3, (4, 4), 2, ranks=3)
    assert shapes == {"hdm": (3, 3, 4, 4), "dm": (3, 3, 4, 4), "hdm_stages": (3, 3, 2, 4, 4)}
    arrays = {name: np.random.default_rng(0).random(shape).astype(np.float16) for name, shape in shapes.items()}
    create_arrays(storage.zarr("maps.zarr"), shapes, 3)
    put(storage, encode_shard(0, 0, 3, arrays))
    for name, array in arrays.items():
        assert storage.read_json(f"maps.zarr/{name}/zarr.json")["dimension_names"] == list(dimension_names(name, array.ndim))
        for rank in range(3):
            np.testing.assert_array_equal(read_map(storage.zarr("maps.zarr"), name, 1, rank), array[1, rank].astype(np.float32))
    assert dimension_names("hdm_stages", 5) == ("image", "rank", "stage", "y", "x")
    assert dimension_names("hdm_stages", 4) == ("image", "stage", "y", "x")


# Runs


def test_a_run_is_laid_out_written_and_found_again(place: Place) -> None:
    plan = plan_of(place.configuration())
    store = RunStore.from_config(plan.config)
    assert store.create(plan) is True
    assert store.create(plan) is False
    assert store.done() == set()
    write_all(store, plan)
    assert store.done() == {0, 1, 2}

    again = RunStore.open(store.url, place.options)
    assert again.metadata()["config_hash"] == plan.config.hash()
    assert again.done() == {0, 1, 2}
    records = again.records().to_pylist()
    assert [(record["row"], record["method"]) for record in records] == [
        (row, method) for row in range(5) for method in ("hdm", "grad_cam")
    ]
    again.write_image_facts()
    assert again.images()["sha256"].to_pylist() == [f"{row:064d}" for row in range(5)]


def test_only_one_of_two_commits_of_a_shard_counts(place: Place) -> None:
    plan = plan_of(place.configuration())
    store = RunStore.from_config(plan.config)
    store.create(plan)
    shard = plan.shards[1]
    other = plan.config.model_copy(update={"seed": 1})
    assert store.write_shard(shard, *results(plan, shard), plan.config) is True
    assert store.write_shard(shard, *results(plan, shard), other) is False
    assert store.storage.read_json("commits/000001.json")["config_hash"] == plan.config.hash()


@pytest.mark.parametrize("end", ["", "/"])
def test_a_run_lies_below_its_output(place: Place, end: str) -> None:
    store = RunStore.from_config(place.configuration(output=place.url + end, name="a.b-c"))
    assert store.url == Storage(place.url, place.options).url("a.b-c")


def test_where_there_is_no_run_it_says_so(place: Place) -> None:
    message = refused(lambda: RunStore.open(f"{place.url}/nowhere", place.options))
    assert "nowhere: no run of hdm" in message
    assert message.endswith("give the folder that holds run.json")


def test_a_run_file_that_is_no_json_is_no_run(storage: Storage) -> None:
    storage.write("run.json", b"{")
    assert "no run of hdm" in refused(lambda: RunStore.open(storage.url(""), storage.options))


# Several writers


@pytest.fixture
def shared(place: Place) -> Storage:
    if place.url.startswith("memory:"):
        pytest.skip("memory:// has no conditional writes")
    return Storage(place.url, place.options)


@pytest.fixture
def writers(shared: Storage) -> list[Storage]:
    """Sixteen that write to one place, each with a client of its own."""
    return [Storage(shared.url(""), shared.options) for _ in range(16)]


def race(writers: list[Storage], names: list[str], write: Callable[[Storage, str, bytes], bool]) -> dict[str, list[bytes]]:
    """Let all writers write all names at once, each its number; return the numbers that were written, by name.

    All names at once: a server may let the losers of one name wait for a second each, and these seconds pass side by side.
    """
    barrier, won = threading.Barrier(len(writers) * len(names)), {name: [] for name in names}

    def one(name: str, number: int, storage: Storage) -> None:
        barrier.wait()
        if write(storage, name, b"%d" % number):
            won[name].append(b"%d" % number)

    threads = [threading.Thread(target=one, args=(name, *writer)) for name in names for writer in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_of_sixteen_who_create_exactly_one_wins(shared: Storage, writers: list[Storage]) -> None:
    names = [f"commits/{turn}" for turn in range(10)]
    for name, (winner,) in race(writers, names, lambda storage, name, data: storage.create(name, data)).items():
        assert shared.read(name) == winner
    assert len(shared.names("commits")) == 10


def test_of_sixteen_who_replace_one_version_exactly_one_wins(shared: Storage, writers: list[Storage]) -> None:
    names = [f"leases/{turn}" for turn in range(5)]
    for name in names:
        shared.create(name, b"first")
    for _ in range(2):
        tags = {name: shared.read_tagged(name)[1] for name in names}

        def write(storage: Storage, name: str, data: bytes, tags: dict[str, str] = tags) -> bool:
            return storage.replace(name, b"%s after %s" % (data, tags[name].encode()), tags[name])

        for name, (winner,) in race(writers, names, write).items():
            assert shared.read(name) == b"%s after %s" % (winner, tags[name].encode())
    assert len(shared.names("leases")) == 5


def test_what_is_gone_or_changed_is_not_replaced(shared: Storage) -> None:
    shared.create("leases/1", b"first")
    _, tag = shared.read_tagged("leases/1")
    shared.write("leases/1", b"second")
    assert not shared.replace("leases/1", b"third", tag)
    assert shared.read("leases/1") == b"second"
    _, tag = shared.read_tagged("leases/1")
    shared.remove("leases/1")
    shared.remove("leases/1")
    assert not shared.replace("leases/1", b"third", tag)
    assert not shared.exists("leases/1")


def test_whether_conditions_are_kept_is_found_out_and_leaves_nothing(storage: Storage) -> None:
    assert storage.is_conditional() is not storage.url("").startswith("memory:")
    assert storage.names("leases") == []


def test_a_write_that_fails_for_another_reason_is_no_lost_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the error: the server of these tests refuses nothing as invalid."""
    storage = Storage(f"memory://{uuid.uuid4().hex}")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "the bucket wants another kind of encryption")

    monkeypatch.setattr(storage.fs, "pipe_file", refuse)
    for write in (lambda: storage.create("a", b"1"), lambda: storage.replace("a", b"1", "tag")):
        with pytest.raises(OSError, match="encryption"):
            write()


# On a disk alone


def test_a_reader_never_sees_half_an_object(tmp_path: Path) -> None:
    storage, stop = Storage(str(tmp_path)), threading.Event()
    storage.write("a", b"0" * 300_000)

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            storage.write("a", b"%d" % (turn % 10) * 300_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [storage.read("a") for _ in range(200)]
    finally:
        stop.set()
        writer.join()
    assert all(len(data) == 300_000 and len(set(data)) == 1 for data in seen)


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.create("commits/000000.json", b"{}")
    (tmp_path / "commits" / "000001.json.0123456789abcdef.tmp").write_bytes(b"{")
    assert storage.names("commits") == ["000000.json"]
    assert storage.create("commits/000001.json", b"{}")
