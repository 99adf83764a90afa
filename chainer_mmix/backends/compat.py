"""The module that the start-up file of chainer-mmix 0.1 imports before Chainer."""

from __future__ import annotations

import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec

from chainer_revive import compat
from chainer_revive.compat import PatchMismatch, install

__all__ = ["PatchMismatch", "find_spec", "install"]


def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
    """Like :func:`chainer_revive.compat.find_spec`, but loads no module again.

    Importing this module imports chainer_mmix, and thus Chainer.
    """
    if target is None and name in sys.modules:
        return ModuleSpec(name, KeptModule(sys.modules[name]))
    return compat.find_spec(name, path, target)


class KeptModule(Loader):
    """Loads nothing, and gives a module that is there already."""

    def __init__(self, module) -> None:
        self._module, self._spec = module, module.__spec__
        module.__spec__ = None  # or Python would load by this one

    def create_module(self, spec):
        return self._module

    def exec_module(self, module) -> None:
        module.__spec__ = self._spec
