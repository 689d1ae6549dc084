"""Records of a run in a table of DuckDB, which follows a run at work."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import one_line
from pipeline.runs import RunStore
from pipeline.runs.records import RECORDS, from_parquet
from pipeline.view.columns import IMAGE_COLUMNS, RECORD_COLUMNS, Columns
from pipeline.view.database import Database, quoted
from pipeline.view.image_rows import IMAGE_SCHEMA, ImageRows

_SECONDS_BETWEEN_LISTINGS = 2.0
_BATCH = 128  # shards that enter the table together
_READERS = 8
_PAUSE = 0.5  # seconds after the first shards, in which the first page is drawn: reading the rest takes both cores

# A dataset numbers its own classes: only equal names prove that they are the network's, unless one of the two has no names.
_CORRECT = """CASE
    WHEN r.target IS NULL OR (i.class_name IS NULL AND r.label IS NULL) THEN NULL
    WHEN i.class_name IS NOT NULL AND r.target_name IS NOT NULL THEN
        CASE WHEN list_contains(list_append(string_split(nfc_normalize(i.class_name), '|'), nfc_normalize(i.class_name)),
            nfc_normalize(split_part(r.target_name, ' rather than ', 1))) THEN 'yes' ELSE 'no' END
    ELSE CASE WHEN r.label = r.target THEN 'yes' ELSE 'no' END END"""


class Catalogue:
    """Results of a run's committed shards: one row per image, method and rank.

    A thread reads shards that were committed since; the table grows meanwhile.

    Args:
        complete: called by the thread when all shards are in the table.

    Attributes:
        name: of the attached database with the tables `images` and `results`.
        shards: number of the run's shards.
        loaded: the shards in the table.
        broken: one line per shard that cannot be read.
        error: one line if the run cannot be read now, else empty.
    """

    def __init__(
        self,
        store: RunStore,
        info: Mapping[str, Any],
        columns: Columns,
        database: Database,
        name: str = "run",
        complete: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.shards, self.columns = name, int(info["shards"]), columns
        self._shard_size = int(info["config"]["compute"]["shard_size"])
        self.loaded: set[int] = set()
        self.broken: dict[int, str] = {}
        self.error = ""
        self._store, self._database, self._complete = store, database, complete
        self._lock = threading.Lock()
        self._next_listing = 0.0
        self._thread: threading.Thread | None = None
        self._first = threading.Event()

    @property
    def loading(self) -> bool:
        """True while shards are being read."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def table(self) -> str:
        """Name of the table in SQL."""
        return f"{quoted(self.name)}.results"

    def refresh(self, wait: float = 0.0) -> None:
        """Read new shards in the background, and list them every two seconds at most.

        Args:
            wait: seconds to wait for the first shards.
        """
        with self._lock:
            if not self.loading and time.monotonic() >= self._next_listing and len(self.loaded) + len(self.broken) < self.shards:
                self._thread = threading.Thread(target=self._load, name=f"read {self.name}", daemon=True)
                self._thread.start()
        self._first.wait(wait)

    def wait(self) -> None:
        """Wait until the shards that are being read are in the table."""
        if self._thread is not None:
            self._thread.join()

    def _load(self) -> None:
        connection = self._database.connect()
        try:
            if not self._has_tables(connection):
                self._create(connection)
            images = self._images(connection)
            new = sorted(self._store.done() - self.loaded - set(self.broken))
            with ThreadPoolExecutor(_READERS) as readers:
                # The first batch is small, so that a page is there at once.
                sizes = [0, min(8, len(new)), *range(8 + _BATCH, len(new), _BATCH), len(new)]
                for begin, end in itertools.pairwise(sizes):
                    if shards := new[begin:end]:
                        images.advance((shards[-1] + 1) * self._shard_size)
                        self._insert(connection, shards, list(readers.map(self._read, shards)))
                        if not self._first.is_set():
                            self._first.set()
                            time.sleep(_PAUSE if end < len(new) else 0)
            self.error = ""
            if len(self.loaded) == self.shards:
                self._complete()
        except (OSError, ValueError, pa.ArrowException) as error:
            self.error = f"the run cannot be read: {one_line(error)}"
        except duckdb.Error as error:
            self.error = f"the records cannot be held: {one_line(error, 200)}"
        finally:
            connection.close()
            self._next_listing = time.monotonic() + _SECONDS_BETWEEN_LISTINGS
            self._first.set()

    def _has_tables(self, connection: duckdb.DuckDBPyConnection) -> bool:
        sql = "SELECT count(*) FROM duckdb_tables() WHERE database_name = ? AND table_name = 'results'"
        ((tables,),) = connection.execute(sql, [self.name]).fetchall()
        return bool(tables)

    def _create(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the tables, which are empty."""
        extra = self.columns.extra
        if extra is not None:
            connection.register("extra_batch", extra)
            connection.execute(f"CREATE TABLE {quoted(self.name)}.extra AS SELECT DISTINCT ON (image_id) * FROM extra_batch")
            connection.unregister("extra_batch")
        connection.register("images_batch", pa.Table.from_batches([], IMAGE_SCHEMA))
        connection.execute(f"CREATE TABLE {quoted(self.name)}.images AS {self._image_select()}")
        connection.unregister("images_batch")
        connection.register("batch", pa.Table.from_batches([], self._schema()))
        connection.execute(f"CREATE TABLE {self.table} AS {self._select()}")
        connection.unregister("batch")

    def _images(self, connection: duckdb.DuckDBPyConnection) -> ImageRows:
        """Return what adds the images that the table does not have yet."""

        def insert(batch: pa.Table) -> None:
            connection.register("images_batch", batch)
            connection.execute(f"INSERT INTO {quoted(self.name)}.images {self._image_select()}")
            connection.unregister("images_batch")

        ((present,),) = connection.execute(f"SELECT count(*) FROM {quoted(self.name)}.images").fetchall()
        return ImageRows(self._store, present, insert)

    def _image_select(self) -> str:
        further = "".join(f", e.{quoted(name)}" for name in self.columns.extra_names)
        join = f"LEFT JOIN {quoted(self.name)}.extra e ON i.image_id = e.image_id" if further else ""
        return f"SELECT i.*{further} FROM images_batch i {join} ORDER BY i.row"

    def _insert(self, connection: duckdb.DuckDBPyConnection, shards: Sequence[int], tables: Sequence[pa.Table | str]) -> None:
        """Add the records of some shards; a text in place of a table is an error."""
        read = {shard: table for shard, table in zip(shards, tables, strict=True) if not isinstance(table, str)}
        if read:
            connection.register("batch", pa.concat_tables(read.values()).combine_chunks())
            connection.execute(f"INSERT INTO {self.table} {self._select()}")
            connection.unregister("batch")
        self.loaded |= set(read)
        self.broken |= {shard: text for shard, text in zip(shards, tables, strict=True) if isinstance(text, str)}

    def _select(self) -> str:
        own = ", ".join(f"r.{quoted(name)}" for name in (*RECORD_COLUMNS, *self.columns.metrics))
        image = ", ".join(f"i.{quoted(name)}" for name in (*IMAGE_COLUMNS, *self.columns.extra_names))
        # In the order of the dataset, so that a page of it is found without a sort of everything.
        return (
            f"SELECT {own}, {image}, {_CORRECT} AS correct FROM batch r JOIN {quoted(self.name)}.images i ON r.row = i.row ORDER BY r.row"
        )

    def _schema(self) -> pa.Schema:
        return pa.schema([RECORDS.field(name) for name in (*RECORD_COLUMNS, *self.columns.metrics)])

    def _read(self, shard: int) -> pa.Table | str:
        """Read the records of a shard, or return the error as one line."""
        try:
            data = self._store.storage.read(f"records/part-{shard:06d}.parquet")
            return from_parquet([data], RECORDS, self._schema().names)
        except (OSError, ValueError, pa.ArrowException) as error:
            return f"shard {shard}: {one_line(error)}"
