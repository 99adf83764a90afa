"""Runs every benchmark of this folder and says on which machine."""

from __future__ import annotations

import augment
import cpu
import loss
import mix
import pipeline
import ranks
import startup
import training_step
from paired import machine


def main() -> None:
    print(machine())
    for benchmark in (startup, mix, loss, augment, pipeline, training_step, cpu, ranks):
        benchmark.main()


if __name__ == "__main__":
    main()
