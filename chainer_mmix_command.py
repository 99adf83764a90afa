"""The command ``chainer-mmix``, before what takes seconds to import."""

import os
import signal
import sys


def end_on_ctrl_c() -> None:
    """Lets Ctrl-C end the process with one line, where nothing has to be saved.

    An exception would be a traceback out of whatever is imported just then. A training
    handles Ctrl-C by itself. A process that ignores it still does.
    """
    process = os.getpid()

    def end(signum: int, frame: object) -> None:
        if os.getpid() == process:  # not a worker, which Ctrl-C reaches too
            os.write(2, b"interrupted\n")
        os._exit(128 + signum)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def main() -> int:
    """Runs the command."""
    end_on_ctrl_c()
    from chainer_mmix.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
