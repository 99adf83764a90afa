"""What the start-up hook and the patches cost, in whole processes."""

from __future__ import annotations

import os
import subprocess
import sys

from paired import measure, report


def process(code: str, **environment: str):
    command = [sys.executable, "-c", code]
    env = {**os.environ, **environment}
    return lambda: subprocess.run(command, env=env, check=True)


def main() -> None:
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
