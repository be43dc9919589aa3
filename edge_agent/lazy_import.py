"""Modules that are imported when something of them is first used.

For what a library imports and hardly ever uses: on a board each is memory for ever.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


def import_later(name: str) -> None:
    """Let `import name` bind a module that is loaded when it is used.

    (importlib's own LazyLoader would load it at the import statement, which looks at
    `__spec__`.)
    """
    if name not in sys.modules:
        parent, _, last = name.rpartition(".")
        module = sys.modules[name] = _Later(name)
        if parent:
            setattr(importlib.import_module(parent), last, module)


class _Later(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # of those who look through all modules
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


# Before whoever imports them. dataclasses (of Python 3.11) asks for classes without a
# docstring: 0.9 MB with ast, dis and tokenize; urllib.parse, which pathlib imports, for IPv6
# addresses: 0.3 MB.
import_later("inspect")
import_later("ipaddress")
