"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    # Ctrl-C while all is imported and made ready ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

try:
    from chainer_mmix.cli.train import main
except ModuleNotFoundError as e:
    sys.exit(f"{e} in {sys.executable}: run 'make venv', then '. .venv/bin/activate'")

if __name__ == "__main__":
    sys.exit(main())
