"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

import sys

from chainer_mmix_command import end_on_ctrl_c

if __name__ == "__main__":
    end_on_ctrl_c()

try:
    from chainer_mmix.cli.train import main
except ModuleNotFoundError as e:
    sys.exit(f"{e} in {sys.executable}: run 'make venv', then '. .venv/bin/activate'")

if __name__ == "__main__":
    sys.exit(main())
