"""Whether the installed CuPy has every name that Chainer uses on it."""

import ast
import warnings
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from chainer_revive.compat import importer, patches

cupy = pytest.importorskip("cupy")

# What chainer.backends.cuda calls CuPy's modules.
OF_CHAINER = {
    **{name: f"cupy.cuda.{name}" for name in ("cublas", "Device", "Event", "Stream")},
    **{"cupy": "cupy", "cupyx": "cupyx", "cuda": "cupy.cuda"},
    **{"cudnn": "cupy.cudnn", "libcudnn": "cupy.cuda.cudnn", "ndarray": "cupy.ndarray"},
}
# Tried, and done without.
OPTIONAL = {"cupy.util", "cupy.util.PerformanceWarning"}


def dotted(node):
    """The names of ``a.b.c``; nothing for other expressions."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def uses(source):
    """Yields what a module of Chainer's uses of CuPy, as ``cupy.cuda.Stream``."""
    nodes = list(ast.walk(ast.parse(source)))
    roots = {"cupy": "cupy", "cupyx": "cupyx", "xp": "cupy"}

    def full(names):
        if names[:1] == ["chainer"]:
            names = names[2 if names[1:2] == ["backends"] else 1 :]
        if names[:1] == ["cuda"] and "cuda" not in roots and len(names) > 1:
            root, rest = OF_CHAINER.get(names[1]), names[2:]
        else:
            root, rest = roots.get(names[0]) if names else None, names[1:]
        return root and ".".join([root, *rest])

    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in ("cupy", "cupyx"):
                for alias in node.names:
                    roots[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in ("cupy", "cupyx"):
                    roots[alias.asname or "cupy"] = (
                        alias.name if alias.asname else "cupy"
                    )
                    yield alias.name
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = full(dotted(node.value))
            if name in ("cupy.cudnn", "cupy.cuda.cudnn"):
                roots[node.targets[0].id] = name
    for node in nodes:
        if isinstance(node, ast.Attribute) and (name := full(dotted(node))):
            yield name


def all_uses():
    """Returns each name, and the modules that use it."""
    found = defaultdict(set)
    for package in ("chainer", "chainermn", "chainercv"):
        root = Path(find_spec(package).origin).parent
        for file in root.rglob("*.py"):
            parts = package, *file.relative_to(root).with_suffix("").parts
            if "testing" in parts:
                continue
            module = ".".join(parts).removesuffix(".__init__")
            source = file.read_text(encoding="utf-8")
            if module in patches.PATCHES:
                source = importer.patched(module, source)
            for name in uses(source):
                found[name].add(module)
    return found


def exists(name):
    first, *rest = name.split(".")
    value, path = import_module(first), first
    for part in rest:
        path += f".{part}"
        try:
            value = getattr(value, part)
        except AttributeError:
            try:
                value = import_module(path)
            except ImportError:
                return False
    return True


def test_every_name_is_there():
    found = all_uses()
    # From each corner of what is looked for.
    assert {
        *("cupy.cuda.Stream.null", "cupyx.scatter_add", "cupy.cuda.nccl.NCCL_SUM"),
        *("cupy.cudnn.convolution_forward", "cupy.cuda.cudnn.CUDNN_POOLING_MAX"),
        *("cupy.get_default_memory_pool", "cupy.linalg.norm"),
    } <= found.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing libraries
        left_out = [
            name
            for name in ("cupy.cudnn", "cupy.cuda.cudnn", "cupy.cuda.nccl")
            # CuPy 14 has no cuDNN; NCCL may not be installed.
            if not exists(f"{name}.{'get_version' if 'nccl' in name else '__name__'}")
        ]
        missing = {
            name: sorted(modules)
            for name, modules in found.items()
            if name not in OPTIONAL
            and not any(f"{name}.".startswith(f"{root}.") for root in left_out)
            and not exists(name)
        }
    assert not missing
    if cupy.__version__ < "14":
        assert "cupy.cudnn" not in left_out


def test_what_is_missing_is_found():
    source = """
from chainer.backends import cuda
import cupy as cp
from cupy.cuda import nothing
cudnn = cuda.cudnn
cuda.cupy.gone(cudnn.gone, cp.gone)
xp.gone.too, cuda.cuda.Gone
"""
    assert {name for name in uses(source) if not exists(name)} >= {
        *("cupy.gone", "cupy.gone.too", "cupy.cuda.Gone", "cupy.cuda.nothing"),
        "cupy.cudnn.gone",
    }
