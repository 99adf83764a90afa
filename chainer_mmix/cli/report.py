"""``chainer-mmix report``: training runs on one page of HTML."""

from __future__ import annotations

import argparse
import shlex

from chainer_mmix.cli import command

_DESCRIPTION = f"""\
Write what training runs have left into one HTML page that needs no other file and
no network: their settings, a comparison, curves, robustness, calibration and
mixing where they are recorded, pictures, versions and commands.

{command.RUNS_HELP}"""
_EPILOG = """\
example:
  chainer-mmix report result/digits_* --out digits.html
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = command.add_parser(
        *(commands, "report", _report),
        help="show training runs on one page of HTML",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    command.add_arguments(parser, "report.html", "the page")
    command.add_quiet(parser)


def _report(args: argparse.Namespace) -> None:
    from chainer_mmix.runs.report import make_report
    from chainer_revive.atomic import write_atomically

    out = command.check_out(args.out, ".html")
    groups, comparison = command.load(args)
    words = ["chainer-mmix", "report", *args.runs, "--out", args.out]
    words += ["--metric", args.metric] if args.metric else []
    words += ["--best", args.best] if args.best else []
    page = make_report(groups, comparison, shlex.join(words), args.quiet)
    with write_atomically(out, "wb") as file:
        # What is no Unicode, as names of files may be, is no reason to fail.
        file.write(page.encode(errors="xmlcharrefreplace"))
    command.warn(comparison.flaws)
    print(f"Report: {out}")
