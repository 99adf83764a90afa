"""The console script ``chainer-mmix``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from chainer_mmix.cli import compare, evaluate, export, predict, report
from chainer_mmix.cli.parser import Parser
from chainer_revive.gpu_check import doctor


class _Version(argparse.Action):
    """Looks the version up when asked only: that takes longer than the rest."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print(f"{parser.prog} {metadata.version('chainer-mmix')}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line, with one subparser a command."""
    parser = Parser(
        prog="chainer-mmix",
        description="Manifold Mixup for Chainer: train, compare, use the networks.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version and exit"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train a network with Manifold Mixup")
    compare.add_parser(commands)
    report.add_parser(commands)
    predict.add_parser(commands)
    evaluate.add_parser(commands)
    export.add_parser(commands)
    add_doctor(commands)
    return parser


def add_doctor(commands) -> None:
    """Adds the command that checks the GPU."""
    parser = commands.add_parser(
        "doctor",
        help="check what this machine's GPU computes right, and how fast",
        description="Checks each function for a GPU on small random arrays, times it "
        "beside Chainer's own code, and writes a file for a bug report.",
    )
    doctor.add_arguments(parser)
    parser.set_defaults(run=doctor.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv (sequence of str): The arguments, by default those of the process.

    Returns:
        int: The exit status: 0, or 2 when the input is at fault; for ``train`` see
        :func:`chainer_mmix.cli.train.main`.
    """
    for stream in (sys.stdout, sys.stderr):
        # An ASCII terminal gets an escape for the ±, not a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["train"]:
        # It has a parser of its own, which is the script's too.
        from chainer_mmix.cli import train

        return train.main(words[1:], prog="chainer-mmix train")
    args = make_parser().parse_args(words)
    return args.run(args)
