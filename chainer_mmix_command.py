"""The command ``chainer-mmix``, before what takes seconds to import."""

import signal
import sys


def main() -> int:
    """Runs the command; Ctrl-C ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from chainer_mmix.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
