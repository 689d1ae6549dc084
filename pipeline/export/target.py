"""Folder of an export: its marker first, the manifest last, and resumable between."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import InputError, RunError, one_line
from pipeline.storage.objects import Storage, to_json

MANIFEST, MARKER = "manifest.csv", ".export.json"
COLUMNS = (
    *("row", "image_id", "method", "rank", "target", "target_name", "status", "file", "width", "height"),
    *("left", "top", "right", "bottom", "error"),
)

_OURS = re.compile(r"\d{6,}(-.*)?\.(png|tiff|geojson)")
_FOLDER = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]")  # ids of methods, and no ".."


class ExportTarget:
    """A folder or URL that receives an export.

    The export is whole if, and only if, there is a manifest. A marker says of which run and with which settings it was begun; the same
    export continues what was interrupted, and any other is refused unless it may replace what is there.

    Args:
        url: local path or URL.
        options: fsspec options of a URL.
        facts: what makes the export this one: the run and the settings.

    Raises:
        InputError: if the URL's protocol is unknown.
    """

    def __init__(self, url: str, options: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        try:
            self.storage = Storage(url, options)
        except (ValueError, ImportError) as error:
            raise InputError(f"--to {url}: {one_line(error)}") from None
        self._marker = to_json(facts)
        self._methods: Sequence[str] = facts["methods"]
        self._replace = False
        self._begun = False
        self._existing: set[str] = set()

    def check(self, replace: bool) -> None:
        """Refuse a folder that holds anything else; nothing is changed yet.

        Args:
            replace: True if an earlier export may be removed.

        Raises:
            InputError: if it holds an export and `replace` is False, or anything that is no export, or cannot be listed.
        """
        url = self.storage.url("")
        try:
            names, marked = self.storage.names(""), self.storage.exists(MARKER)
            if not names and not marked:
                return
            if not marked:
                raise InputError(f"--to {url}: the folder holds {names[0]!r}, which is no export of hdm; choose a new folder")
            same = self.storage.read(MARKER) == self._marker
            if same and MANIFEST not in names:
                self._existing = {f"{method}/{name}" for method in self._methods for name in self.storage.names(method)}
                self._begun = True
            elif replace:
                self._replace = True
            else:
                what = "an export" if MANIFEST in names else "an unfinished export of something else"
                raise InputError(f"--to {url}: the folder holds {what}; choose another, or replace it with --replace")
        except OSError as error:
            raise InputError(f"--to {url}: cannot be used ({one_line(error)}); choose another folder") from None

    def has(self, name: str) -> bool:
        """Return True if an interrupted export has written this file, which is whole then."""
        return name in self._existing

    def begin(self) -> None:
        """Write the marker, and remove the export that is replaced."""
        if not self._begun:
            if self._replace:
                self._remove_earlier()
            self._write(MARKER, self._marker)
            self._begun = True

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically.

        Raises:
            RunError: if the storage is full or refuses it.
        """
        self._write(name, data)

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the manifest, with one row per map.

        Args:
            rows: with the keys COLUMNS.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(MANIFEST, text.getvalue().encode())

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.storage.write(name, data)
        except RunError:
            raise
        except OSError as error:
            raise RunError(f"--to {self.storage.url('')}: cannot be written ({one_line(error)})") from None

    def _remove_earlier(self) -> None:
        """Remove the files of the earlier export, and no others.

        The manifest goes first: what is left is no whole export.
        """
        self.storage.remove(MANIFEST)
        try:
            methods = json.loads(self.storage.read(MARKER))["methods"]
        except (ValueError, KeyError, TypeError):
            methods = []
        for method in filter(_FOLDER.fullmatch, map(str, methods)):
            for name in filter(_OURS.fullmatch, self.storage.names(method)):
                self.storage.remove(f"{method}/{name}")
