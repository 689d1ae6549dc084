"""What Storage and the run on it promise, wherever they are: on a disk and in an object store.

The object store here is fsspec's memory://. It honours create-only writes, but looks first and writes then: that of several
writers exactly one wins is shown here for the disk only, and for S3 by a server in a later issue.
"""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipeline.store import RunStore
from pipeline.store.maps import create_arrays, encode_shard, read_map
from pipeline.store.storage import Storage, to_json
from tests.pipeline.material import configuration, plan_of, refused, results, write_all


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        root = f"/{uuid.uuid4().hex}"
        yield f"memory:/{root}/runs"
        memory = fsspec.filesystem("memory")
        if memory.exists(root):
            memory.rm(root, recursive=True)
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/a folder/runs"


@pytest.fixture
def storage(url: str) -> Storage:
    return Storage(url)


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


def test_create_sees_what_others_have_created(url: str) -> None:
    one, other = Storage(url), Storage(url)
    assert not other.exists("a")
    assert one.create("a", b"one")
    assert other.exists("a")
    assert not other.create("a", b"other")
    assert other.read("a") == b"one"


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
    with fsspec.open(storage.url("a"), "rb") as file:
        assert file.read() == b"1"


# Arrays


def test_arrays_are_written_shard_by_shard(storage: Storage) -> None:
    shapes = {"hdm": (3, 4, 4), "hdm_stages": (3, 2, 4, 4)}
    arrays = {name: np.random.default_rng(0).random(shape).astype(np.float16) for name, shape in shapes.items()}
    create_arrays(storage.zarr("maps.zarr"), shapes, 2)
    for index, start in enumerate((0, 2)):
        objects = encode_shard(index, start, 2, {name: part[start : start + 2] for name, part in arrays.items()})
        assert list(objects) == [f"hdm/c/{index}/0/0", f"hdm_stages/c/{index}/0/0/0"]
        for name, data in objects.items():
            storage.write(f"maps.zarr/{name}", data)
    for name, array in arrays.items():
        for row in range(3):
            np.testing.assert_array_equal(read_map(storage.zarr("maps.zarr"), name, row), array[row].astype(np.float32))


# Runs


def test_a_run_is_laid_out_written_and_found_again(url: str) -> None:
    plan = plan_of(configuration(output=url))
    store = RunStore.at(plan.config)
    assert store.create(plan) is True
    assert store.create(plan) is False
    assert store.done() == set()
    write_all(store, plan)
    assert store.done() == {0, 1, 2}

    again = RunStore.open(store.url)
    assert again.info()["config_hash"] == plan.config.hash()
    assert again.done() == {0, 1, 2}
    records = again.records().to_pylist()
    assert [(record["row"], record["method"]) for record in records] == [
        (row, method) for row in range(5) for method in ("hdm", "grad_cam")
    ]
    again.complete_images()
    assert again.images()["sha256"].to_pylist() == [f"{row:064d}" for row in range(5)]


def test_only_one_of_two_commits_of_a_shard_counts(url: str) -> None:
    plan = plan_of(configuration(output=url))
    store = RunStore.at(plan.config)
    store.create(plan)
    shard = plan.shards[1]
    other = plan.config.model_copy(update={"seed": 1})
    assert store.write_shard(shard, *results(plan, shard), plan.config) is True
    assert store.write_shard(shard, *results(plan, shard), other) is False
    assert store.storage.read_json("commits/000001.json")["config_hash"] == plan.config.hash()


@pytest.mark.parametrize("end", ["", "/"])
def test_a_run_lies_below_its_output(url: str, end: str) -> None:
    store = RunStore.at(configuration(output=url + end, name="a.b-c"))
    assert store.url == Storage(url).url("a.b-c")


def test_where_there_is_no_run_it_says_so(url: str) -> None:
    message = refused(lambda: RunStore.open(f"{url}/nowhere"))
    assert "nowhere: no run of hdm" in message
    assert message.endswith("give the folder that holds run.json")


def test_a_run_file_that_is_no_json_is_no_run(storage: Storage) -> None:
    storage.write("run.json", b"{")
    assert "no run of hdm" in refused(lambda: RunStore.open(storage.url("")))


# On a disk alone


def test_of_sixteen_writers_exactly_one_wins(tmp_path: Path) -> None:
    for turn in range(25):
        barrier, won = threading.Barrier(16), []

        def write(number: int, name: str = f"commits/{turn}", barrier: threading.Barrier = barrier, won: list[Any] = won) -> None:
            storage = Storage(str(tmp_path))
            barrier.wait()
            if storage.create(name, str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert (tmp_path / "commits" / str(turn)).read_text() == str(won[0])
    assert len(list((tmp_path / "commits").iterdir())) == 25


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
