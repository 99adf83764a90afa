"""``chainer-mmix compare``: the logs of training runs side by side."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_DESCRIPTION = """\
Read the logs of training runs, group the runs that differ only in their seed,
print a table (mean ± standard deviation over the seeds) and draw the learning
curves.

A RUN is a folder with the file 'log' of Chainer's LogReport. A folder without
one stands for all its immediate subfolders that have one. The settings are read
from the run's 'run.json'; a run without it, from any other script, is compared
under its folder's name.
"""
_EPILOG = """\
example:
  chainer-mmix compare result/none-0 result/none-1 result/manifold-0 result/manifold-1
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = commands.add_parser(
        "compare",
        help="compare training runs: a table and a picture of their curves",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs"
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "json"),
        default="text",
        help="how to print the table (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        default="compare.png",
        metavar="PNG",
        help="the picture of the curves (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compares ``args.runs``; returns the exit status."""
    from chainer_mmix.analysis.compare import compare_groups
    from chainer_mmix.analysis.curves import save_curves
    from chainer_mmix.analysis.groups import find_flaws, group_runs
    from chainer_mmix.analysis.runs import (
        RunError,
        find_runs,
        read_run,
    )
    from chainer_mmix.analysis.table import FORMATS

    try:
        out = _check_out(args.out)
        folders, left_out = find_runs(args.runs)
        groups = group_runs([read_run(folder) for folder in folders])
        flaws = [f"{folder} has no log yet: left out" for folder in left_out]
        flaws += find_flaws(groups)
        comparison = compare_groups(groups, flaws)
        save_curves(groups, out)
    except RunError as e:
        return _fail(str(e))
    except OSError as e:
        return _fail(
            f"{e.filename or args.out}: {e.strerror}: check the permissions and the "
            "space on the disk"
        )
    for flaw in flaws:
        print(f"warning: {flaw}", file=sys.stderr)
    sys.stdout.write(FORMATS[args.format](comparison))
    if args.format in ("text", "markdown"):
        print(f"\nCurves: {out}")
    return 0


def _check_out(name: str) -> Path:
    from chainer_mmix.analysis.runs import RunError

    out = Path(name)
    if out.suffix.lower() != ".png":
        raise RunError(f"--out {name} is not a PNG: give a name that ends in .png")
    if not out.parent.is_dir():
        raise RunError(f"--out {name} is in no folder: make {out.parent} first")
    if out.is_dir():
        raise RunError(f"--out {name} is a folder: give the name of a file")
    if not os.access(out.parent, os.W_OK):
        raise RunError(f"--out {name} cannot be written: choose another folder")
    return out


def _fail(message: str) -> int:
    print(f"chainer-mmix compare: error: {message}", file=sys.stderr)
    return 2
