"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

import sys

try:
    from chainer_mmix.cli.train import main
except ModuleNotFoundError as e:
    sys.exit(f"{e} in {sys.executable}: run 'make venv', then '. .venv/bin/activate'")

if __name__ == "__main__":
    sys.exit(main())
