"""Checks all functions, in a process that may crash.

usage: python -m chainer_revive.gpu_check FILE DEVICE BESIDE AHEAD [MODULE ...]

Writes a line of JSON to the file as each function begins, and one as it ends.
"""

from __future__ import annotations

import json
import sys

from chainer_revive.gpu_check import run
from chainer_revive.gpu_check.card import usable_layers
from chainer_revive.gpu_check.verdict import COMPILATION, passes


def main(
    path: str, gpu, layers: set[str], modules: list[str], beside: bool, ahead: bool
) -> None:
    """Checks the functions of some layers, and those that use them.

    Args:
        path (str): The file to write.
        gpu (Gpu): Where.
        layers: The layers.
        modules: Modules with more functions.
        beside (bool): Whether Chainer's own code computes there, too.
        ahead (bool): Whether to compile first, in threads.
    """
    passed = []
    with open(path, "w", encoding="utf-8") as file:

        def say(**line) -> None:
            print(json.dumps(line), file=file, flush=True)

        units = [u for u in run.units(modules) if u.layer in {None, *layers}]
        if ahead:
            say(begin=COMPILATION)
            run.compile_ahead(units, gpu)
        for unit in units:
            say(begin=unit.name)
            others = passed if unit.layer is None else []
            results = run.check(unit, gpu, others, beside)
            say(unit=unit.name, what=unit.what, results=results)
            if all(map(passes, results)):
                passed.append(unit)
        say(done=True)


if __name__ == "__main__":
    path, device, beside, ahead, *modules = sys.argv[1:]
    import cupy

    cupy.cuda.Device(int(device)).use()
    gpu = run.Gpu(modules)
    main(path, gpu, usable_layers(), modules, beside == "1", ahead == "1")
