"""Parts that are common to the commands that read training runs."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chainer_mmix.cli.streams import plain_warnings

if TYPE_CHECKING:
    from chainer_mmix.runs.compare import Comparison
    from chainer_mmix.runs.groups import Group

RUNS_HELP = """\
A RUN is a folder with the file 'log' of Chainer's LogReport. A folder without
one stands for all its immediate subfolders that have one. The settings are read
from the run's 'run.json'; a run without it, from any other script, is compared
under its folder's name.
"""


def add_parser(
    commands: argparse._SubParsersAction,
    name: str,
    work: Callable,
    errors: tuple[type[Exception], ...] = (),
    *,
    help: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Adds a command to those of the console script.

    Args:
        commands: Where to add it.
        name (str): What it is called.
        work (callable), errors (tuple of type): As :func:`run` takes them.
        help, description, epilog (str): Of the parser.

    Returns:
        argparse.ArgumentParser: For its arguments.
    """
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=functools.partial(run, name, work=work, errors=errors))
    return parser


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds what a command with a progress bar has."""
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="show the progress of long work by plain lines, on a terminal too",
    )


def add_arguments(parser: argparse.ArgumentParser, out: str, out_help: str) -> None:
    """Adds the runs and the file to write, whose default name is ``out``."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs"
    )
    parser.add_argument(
        "--out",
        default=out,
        metavar=Path(out).suffix[1:].upper(),
        help=f"{out_help} (default: %(default)s)",
    )
    parser.add_argument(
        "--metric",
        metavar="KEY",
        help="the number of the logs to compare by: a key, such as val/main/miou, or "
        "its last part (default: the validation accuracy or, where there is none, "
        "another measure of quality, else the loss)",
    )
    parser.add_argument(
        "--best",
        choices=("highest", "lowest"),
        help="which value of it is the best (default: what its name says)",
    )


def load(args: argparse.Namespace) -> tuple[list[Group], Comparison]:
    """Reads, groups and compares the runs that are meant by some arguments.

    Raises:
        RunError: If one of them is missing or damaged.
    """
    from chainer_mmix.runs.compare import compare_groups
    from chainer_mmix.runs.files import RunError
    from chainer_mmix.runs.groups import find_flaws, group_runs
    from chainer_mmix.runs.metric import choose_metric
    from chainer_mmix.runs.run import find_runs, read_run

    folders, left_out = find_runs(args.runs)
    runs = [read_run(folder) for folder in folders]
    groups = group_runs(runs)
    lower_is_better = None if args.best is None else args.best == "lowest"
    try:
        metric = choose_metric(runs, args.metric, lower_is_better)
    except RunError as e:
        raise RunError(f"{e} (--metric)") from e
    flaws = [f"{folder} has no log yet: left out" for folder in left_out]
    flaws += find_flaws(groups, metric)
    return groups, compare_groups(groups, flaws, metric)


def check_out(name: str, *suffixes: str, flag: str = "--out ") -> Path:
    """Checks that a file can be written, before any work.

    Args:
        name (str): The file.
        suffixes (str): How it may end.
        flag (str): What the errors write before it.

    Raises:
        RunError: If it ends otherwise or cannot be written.
    """
    from chainer_mmix.runs.files import RunError

    out = Path(name)
    if out.suffix.lower() not in suffixes:
        endings = " or ".join(suffixes)
        raise RunError(f"{flag}{name}: give a name that ends in {endings}")
    if not out.parent.is_dir():
        raise RunError(f"{flag}{name} is in no folder: make {out.parent} first")
    if out.is_dir():
        raise RunError(f"{flag}{name} is a folder: give the name of a file")
    if not os.access(out.parent, os.W_OK):
        raise RunError(f"{flag}{name} cannot be written: choose another folder")
    return out


def run(
    command: str,
    args: argparse.Namespace,
    work: Callable,
    errors: tuple[type[Exception], ...] = (),
) -> int:
    """Runs a command and says in one sentence what was wrong with its input.

    Args:
        command (str): Its name.
        args (argparse.Namespace): Its arguments, with ``out``.
        work (callable): Does it, given ``args``; what it returns is the exit status.
        errors (tuple of type): What else says what was wrong, besides RunError.

    Returns:
        int: The exit status.
    """
    from chainer_mmix.runs.files import RunError

    try:
        with plain_warnings(f"chainer-mmix {command}"):
            code = work(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RunError as e:
        return _fail(command, str(e))
    except errors as e:
        return _fail(command, " ".join(str(e).split()))  # one line
    except OSError as e:
        if e.strerror is None:
            return _fail(command, str(e))
        return _fail(
            command,
            f"{e.filename or args.out}: {e.strerror}: check the permissions and the "
            "space on the disk",
        )


def warn(flaws: Sequence[str]) -> None:
    """Prints what makes a comparison doubtful."""
    for flaw in flaws:
        print(f"warning: {flaw}", file=sys.stderr)


def _fail(command: str, message: str) -> int:
    print(f"chainer-mmix {command}: error: {message}", file=sys.stderr)
    return 2
