"""What the start-up hook and the patches cost, in whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from paired import measure, report

HOOK = Path(__file__).parent.parent / "chainer_revive.pth"


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


if __name__ == "__main__":
    main()
