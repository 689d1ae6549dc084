"""Set the clock of Python processes and of the leases two minutes ahead.

Active when its folder is first on PYTHONPATH. libfaketime would shift every clock, but Ray's workers do not start under it: their timed
waits return at once. A `datetime` that is replaced everywhere crashes compiled modules, so it is replaced only in `pipeline.runs.leases`.
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
