"""The import hook: finds Chainer's modules and compiles them patched."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import (
    cache_from_source,
    decode_source,
    source_hash,
    spec_from_file_location,
)

from chainer_revive.compat import libraries
from chainer_revive.compat.package_patches import VERSIONS
from chainer_revive.compat.patches import PATCHES, REWRITES, STAND_INS

_HERE = os.path.dirname(os.path.abspath(__file__))


class PatchMismatch(ImportError):
    """An installed package is not the one that the patches were written for.

    ``name`` is the module that was being imported.
    """


class ChainerMmixHook:
    """The entry in ``sys.meta_path``.

    The start-up file makes one of the same name. So does that of chainer-mmix 0.1,
    which this one replaces where an environment still has it.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        return find_spec(name, path, target)


def install() -> None:
    """Patches Chainer and ChainerCV as they are imported from now on.

    Does nothing when the environment has ``CHAINER_MMIX_COMPAT=0``.

    Raises:
        ImportError: If Chainer has been imported without the patches.
    """
    if os.environ.get("CHAINER_MMIX_COMPAT") == "0":
        return
    others = [finder for finder in sys.meta_path if not _is_hook(finder)]
    if len(others) == len(sys.meta_path) and PATCHES.keys() & sys.modules.keys():
        raise ImportError(
            "Chainer has been imported before chainer_revive could patch it for "
            "NumPy 2. Import chainer_revive or chainer_mmix before chainer, or install "
            "chainer-mmix with pip: its start-up hook makes the order irrelevant."
        )
    sys.meta_path[:] = [ChainerMmixHook, *others]
    if "cupy" in sys.modules:
        libraries.load()


def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
    """Finds a module that needs a patch; ``None`` for every other module.

    Before CuPy is found, CUDA's libraries are loaded.
    """
    if name == "cupy":
        libraries.load()
    if name in STAND_INS:
        file = os.path.join(_HERE, STAND_INS[name])
        return _installed(name, path, target) or spec_from_file_location(name, file)
    if name not in PATCHES and name not in REWRITES and name != "chainer":
        return None
    spec = _installed(name, path, target)
    if spec is None:
        return None
    if not isinstance(spec.loader, SourceFileLoader):
        raise PatchMismatch(
            f"{name} must be installed as a source file to be patched, "
            f"but {spec.origin} is not one",
            name=name,
        )
    if name == "chainer":
        spec.loader = ChainerLoader(name, spec.loader.path)
    else:
        spec.loader = PatchingLoader(name, spec.loader.path)
        spec.cached = spec.loader.cached
    return spec


def _is_hook(finder: object) -> bool:
    return getattr(finder, "__name__", None) == ChainerMmixHook.__name__


def _installed(name: str, path, target) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if not _is_hook(finder) and hasattr(finder, "find_spec"):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


class PatchingLoader(SourceFileLoader):
    """Compiles a patched source file, and keeps the byte code in this package.

    The byte code is checked against the time and size of the installed source, as
    Python's own is, and its name holds a hash of the patches.
    """

    @property
    def cached(self) -> str:
        key = repr(PATCHES.get(self.name) or REWRITES[self.name].__name__).encode()
        stem = f"{self.name}-{source_hash(key).hex()[:8]}"
        return cache_from_source(os.path.join(_HERE, f"{stem}.py"))

    def get_data(self, path):
        return super().get_data(path if path == self.path else self.cached)

    def set_data(self, path, data, **kwargs):
        super().set_data(self.cached, data, **kwargs)

    def source_to_code(self, data, path, **kwargs):
        source = patched(self.name, decode_source(data))
        with warnings.catch_warnings():
            # Backslashes in ChainerCV's docstrings, which pip hides when it compiles.
            warnings.simplefilter("ignore")
            return super().source_to_code(source, path, **kwargs)


class ChainerLoader(SourceFileLoader):
    """Loads Chainer and all that belongs to it, then makes it fast."""

    def exec_module(self, module):
        super().exec_module(module)
        from chainer_revive.switches import use_what_the_environment_asks_for

        use_what_the_environment_asks_for()


def patched(name: str, source: str) -> str:
    """Returns the source of module ``name`` with its patches applied.

    Raises:
        PatchMismatch: If a text to replace does not occur as often as it should.
    """
    if name in REWRITES:
        return REWRITES[name](source)
    for old, new, count in PATCHES[name]:
        found = source.count(old)
        if found != count:
            raise PatchMismatch(
                f"cannot patch {name}: expected {old!r} {count} time(s), found it "
                f"{found} time(s). {_remedy(name.partition('.')[0])}",
                name=name,
            )
        source = source.replace(old, new)
    return source


def _remedy(package: str) -> str:
    own = VERSIONS.get(package)
    if own:
        return (
            f"The patches were written for {own[0]} {own[1]}; installed: "
            f"{_installed_versions(own[0])}. pip install {own[0]}=={own[1]}"
        )
    separate = _installed_versions("chainermn")
    if package == "chainermn" and not separate.startswith("no "):
        return (
            f"{separate} is installed over the ChainerMN that belongs to Chainer 7.8.1:"
            " pip uninstall chainermn, then pip install --force-reinstall --no-deps "
            "--no-build-isolation chainer==7.8.1"
        )
    return (
        "The patches were written for Chainer 7.8.1 and ChainerCV 0.13.1; installed: "
        f"{_installed_versions('Chainer', 'ChainerCV')}. Install those versions, or "
        "set CHAINER_MMIX_COMPAT=0 to run without the patches."
    )


def _installed_versions(*labels: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for label in labels:
        try:
            found.append(f"{label} {version(label.lower())}")
        except PackageNotFoundError:
            found.append(f"no {label}")
    return ", ".join(found)
