"""Trains with and without Manifold Mixup, three seeds each, and compares the runs.

A small network learns scikit-learn's digits from 500 images, 200 of them with a wrong
label. It takes a few minutes on two cores. The runs are in result/demo, which each demo
begins anew.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUT = ROOT / "result" / "demo"
SETTING = "--model cnn --train-size 500 --label-noise 0.4 --epoch 30"


def call(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for seed in range(3):
        for mixup in ("none", "manifold"):
            out = OUT.relative_to(ROOT) / f"{mixup}-{seed}"
            words = f"{SETTING} --mixup {mixup} --alpha 2 --seed {seed} --out {out}"
            call("train_manifoldmixup.py", *words.split())
    out = OUT.relative_to(ROOT)
    call("-m", "chainer_mmix.cli", "compare", str(out), "--out", f"{out}/compare.png")


if __name__ == "__main__":
    main()
