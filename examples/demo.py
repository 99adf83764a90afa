"""Trains with and without Manifold Mixup, five seeds each, and compares the runs.

A small network learns scikit-learn's digits from 500 images, 200 of them with a wrong
label. It takes a few minutes on two cores. The runs are in result/demo, which each demo
begins anew.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from chainer_mmix.progress import Progress

ROOT = Path(__file__).parent.parent
OUT = Path("result", "demo")
SETTING = "--model cnn --train-size 500 --label-noise 0.4 --epoch 30 --alpha 2 --quiet"


def start(*command: str) -> subprocess.Popen:
    print(f"$ python {shlex.join(command)}", flush=True)
    # So small a network gains nothing from a second thread.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env)


def finish(*processes: subprocess.Popen) -> None:
    if any([process.wait() for process in processes]):
        sys.exit("The demo stops here, since a command has failed.")
    print()


def main() -> None:
    shutil.rmtree(ROOT / OUT, ignore_errors=True)
    # The runs write lines, too, that must not be erased.
    with Progress(5, quiet=True) as progress:
        for seed in "01234":
            progress(f"runs of seed {seed}")
            pair = []
            for mixup in ("none", "manifold"):
                words = [*SETTING.split(), "--mixup", mixup, "--seed", seed]
                words += ["--out", str(OUT / f"{mixup}-{seed}")]
                pair.append(start("train_manifoldmixup.py", *words))
            finish(*pair)
    picture = str(OUT / "compare.png")
    finish(start("-m", "chainer_mmix.cli", "compare", str(OUT), "--out", picture))


if __name__ == "__main__":
    main()
