"""What the start-up hook, the patches and compiled loops cost, in whole processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paired import measure, report

from chainer_revive.cpu.numba import store

HOOK = Path(__file__).parent.parent / "chainer_revive.pth"

# One training step of ResNet50 on two images of 32x32 pixels.
STEP = """
import json, time
import chainer
import numpy as np
from chainer_mmix import ManifoldMixupClassifier, models

imported = time.time()
model = ManifoldMixupClassifier(models.ResNet50(10, stem="cifar"), mixup_alpha=2)
optimizer = chainer.optimizers.MomentumSGD().setup(model)
x, t = np.ones((2, 3, 32, 32), "f"), np.arange(2)
start = time.time()
optimizer.update(model, x, t)
end = time.time()
for _ in range(2):
    optimizer.update(model, x, t)
with open("/proc/self/status") as file:
    (most,) = [line.split()[1] for line in file if line.startswith("VmHWM")]
print(json.dumps({"end": end, "step": end - start, "memory": int(most)}))
"""
# As if no loop could be kept but by Numba itself.
BY_NUMBA = "from chainer_revive.cpu.numba import store\nstore.SUPPORTED = False\n"
COMPILE = "chainer_revive compile chainer_mmix.mixing.loops"
TURNS = 7


def process(code: str, **environment: str):
    command = [sys.executable, "-c", code]
    env = {**os.environ, **environment}
    return lambda: subprocess.run(command, env=env, check=True)


def exec_line(line: str):
    def call():
        meta_path = sys.meta_path[:]
        others = [f for f in meta_path if "Mmix" not in getattr(f, "__name__", "")]
        sys.meta_path[:] = others
        exec(line)
        sys.meta_path[:] = meta_path

    return call


def step(code: str, **environment: str) -> dict[str, float]:
    """Runs STEP; adds how long the process took until its first step was done."""
    start = time.time()
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    result = json.loads(output)
    return {**result, "start": result["end"] - start}


def loops() -> None:
    """Measures first and later runs, with loops kept as they are and by Numba alone."""
    own = {"CHAINER_MMIX_CPU": "0"}
    with tempfile.TemporaryDirectory() as folder:
        ways = {"Chainer's own code": (STEP, own)}
        ways["Numba in each process"] = (BY_NUMBA + STEP, cache(folder, "numba"))
        ways["loops from the disk"] = (STEP, cache(folder, "compiled"))
        ready = {**os.environ, **cache(folder, "compiled")}
        command = [sys.executable, "-m", *COMPILE.split()]
        start = time.time()
        subprocess.run(command, env=ready, check=True, stdout=subprocess.DEVNULL)
        print(f"\nCompiling all loops, as make venv does: {time.time() - start:.1f} s")
        print("\nThe first step of a first run")
        firsts = {**ways, "loops not compiled before": (STEP, cache(folder, "none"))}
        for name, (code, environment) in firsts.items():
            print(f"  {name:<32} {step(code, **environment)['step']:10.2f} s")
        results: dict[str, list[dict]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, (code, environment) in ways.items():
                results[name].append(step(code, **environment))
    times = {name: [r["start"] for r in found] for name, found in results.items()}
    memory = {
        name: statistics.median(r["memory"] for r in found) / 1024
        for name, found in results.items()
    }
    least = memory["Chainer's own code"]
    notes = {name: f"{m:.0f} MiB ({m - least:+.0f})" for name, m in memory.items()}
    report("A later run until its first step is done, and its memory", times, notes)


def cache(folder: str, name: str) -> dict[str, str]:
    return {"CHAINER_MMIX_CPU": "numba", "NUMBA_CACHE_DIR": f"{folder}/{name}"}


def main() -> None:
    line = HOOK.read_text()
    candidates = {"nothing": exec_line("pass"), "start-up hook": exec_line(line)}
    report("A line of a .pth file, in process", measure(candidates, 1000))
    off = {"CHAINER_MMIX_COMPAT": "0"}
    candidates = {
        "hook off": process("pass", **off),
        "hook on": process("pass"),
    }
    report("python -c pass", measure(candidates, 60))
    candidates = {
        "numpy": process("import numpy"),
        "chainer": process("import chainer"),
        "chainer_mmix": process("import chainer_mmix"),
        "ManifoldMixupClassifier": process(
            "from chainer_mmix import ManifoldMixupClassifier"
        ),
    }
    report("python -c 'import ...'", measure(candidates, 9))
    if store.SUPPORTED:
        loops()


if __name__ == "__main__":
    main()
