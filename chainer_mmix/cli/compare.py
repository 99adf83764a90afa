"""``chainer-mmix compare``: the logs of training runs side by side."""

from __future__ import annotations

import argparse
import sys

from chainer_mmix.cli import command

_DESCRIPTION = f"""\
Read the logs of training runs, group the runs that differ only in their seed,
print a table (mean ± standard deviation over the seeds) and draw the learning
curves. Each setting is compared with the one without mixing that is like it
otherwise; if there is none, with the plainest one, which does not mix if any does not.

{command.RUNS_HELP}"""
_EPILOG = """\
example:
  chainer-mmix compare result/none-0 result/none-1 result/manifold-0 result/manifold-1
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = command.add_parser(
        *(commands, "compare", _compare),
        help="compare training runs: a table and a picture of their curves",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    command.add_arguments(parser, "compare.png", "the picture of the curves")
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "json"),
        default="text",
        help="how to print the table (default: %(default)s)",
    )


def _compare(args: argparse.Namespace) -> None:
    from chainer_mmix.runs.curves import save_curves
    from chainer_mmix.runs.table import FORMATS

    out = command.check_out(args.out, ".png")
    groups, comparison = command.load(args)
    save_curves(groups, comparison.metric, out)
    command.warn(comparison.flaws)
    sys.stdout.write(FORMATS[args.format](comparison))
    if args.format in ("text", "markdown"):
        print(f"\nCurves: {out}")
