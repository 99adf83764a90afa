"""``python -m chainer_revive compile``: compiles all loops, so that nobody waits."""

from __future__ import annotations

import argparse
import pkgutil
import time
from collections.abc import Sequence
from importlib import import_module

import chainer  # noqa: F401  (comes before chainer_revive.cpu)


def main(args: Sequence[str], prog: str) -> None:
    parser = argparse.ArgumentParser(
        prog,
        description="Compiles all loops for this processor and keeps them on disk, so "
        "that no process waits for that, or needs the memory of Numba.",
    )
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="a module with loops of its own: chainer_mmix.mixing.loops",
    )
    modules = parser.parse_args(args).modules

    from chainer_revive.cpu import numba
    from chainer_revive.cpu.numba.native import natives

    for module in pkgutil.iter_modules(numba.__path__, f"{numba.__name__}."):
        if not module.name.endswith(".compilation"):
            import_module(module.name)
    for name in modules:
        import_module(name)
    start = time.perf_counter()
    missing = [native for native in natives if not native.is_kept()]
    if missing:
        print(f"Compiling {len(missing)} loops: half a minute or so", flush=True)
    for native in missing:
        native.address  # noqa: B018
    kept = sum(native.is_kept() for native in natives)
    seconds = time.perf_counter() - start
    print(f"Compiled {len(missing)} of {len(natives)} loops in {seconds:.0f} s.")
    if kept < len(natives):
        print(f"{len(natives) - kept} of them need Numba in each process.")
