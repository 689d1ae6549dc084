"""First on PYTHONPATH, it makes the clock two minutes fast by which Python's processes and the leases go.

libfaketime would shift every clock, but Ray's workers do not start under it: their timed waits are over at once. And a
`datetime` that is another one everywhere crashes compiled modules, so it is one only in `pipeline.runs.leases`.
"""

import datetime as dt
import importlib.abc
import importlib.util
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType

AHEAD = 120.0
_time = time.time
time.time = lambda: _time() + AHEAD


class _Fast(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return dt.datetime.now(tz) + dt.timedelta(seconds=AHEAD)


class _Leases(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != "pipeline.runs.leases":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.datetime = _Fast

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Leases())
