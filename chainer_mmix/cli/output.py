"""Finds a run in the output folder of a training, and takes over the folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chainer_mmix import training
from chainer_mmix.cli.options import naming
from chainer_mmix.cli.resume import check_same_run, newest_snapshot
from chainer_mmix.runs.log import write_log
from chainer_mmix.runs.record import RunRecord, read_record
from chainer_mmix.training.multinode import Ranks


def snapshot_to_resume(asked: str | bool, out: str, ranks: Ranks) -> str | None:
    """Finds the snapshot to go on from; says which newer ones are damaged."""
    if os.path.isdir(out) and os.access(out, os.W_OK):
        # A run at work there would take away the snapshot that is found.
        lock(out, ranks).release()
    with naming("resume"):
        found, flaws = newest_snapshot(asked, out)
    for flaw in flaws:
        print(f"warning: {flaw}: going on from {found}", file=sys.stderr)
    return found


def check_folder(
    args: argparse.Namespace, arguments: Mapping[str, Any], again: bool, ranks: Ranks
) -> None:
    """Checks that the run which the folder holds, if any, is the one to go on with.

    Raises:
        ValueError: If it is another one.
    """
    if args.resume:
        # A schedule ends with the last epoch.
        scheduled = args.alpha_end is not None or args.mixup_prob_end is not None
        fixed = {"epoch", "batchsize"} if scheduled or args.cosine else ()
        folder = os.path.dirname(args.resume) or "."
        check_same_run(folder, arguments, fixed)
        before = read_record(Path(folder)).get("ranks", ranks.size)
        if scheduled and before != ranks.size:
            raise ValueError(
                f"--alpha-end and --mixup-prob-end go by iterations, and {folder} "
                f"is of {before} ranks, not {ranks.size}: resume with as many"
            )
    with naming("out", "resume"):
        training.check_output(args.out, args.resume, again)


def lock(out: str, ranks: Ranks) -> training.RunLock:
    """Locks the output folder.

    The ranks of a run that mpiexec has ended may live on for a moment.
    """
    until = time.monotonic() + (10 if ranks.size > 1 else 0)
    while True:
        try:
            return training.RunLock(out)
        except training.LockedError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.5)


def open_output(out: str, ranks: Ranks) -> training.RunLock:
    """Makes the output folder and locks it."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ValueError(
            f"the output folder {out} cannot be made ({e.strerror}): name another "
            "with --out"
        ) from e
    return lock(out, ranks)


def begin(
    trainer, record: RunRecord, args: argparse.Namespace, asked: str | bool, again: bool
) -> None:
    """Makes the locked output folder that of the run.

    Raises:
        ValueError: If another run has been there since the folder was looked at.
    """
    with naming("out", "resume"):
        training.check_output(args.out, args.resume, again)
        if asked and newest_snapshot(asked, args.out)[0] != args.resume:
            raise ValueError(f"another run has just written into {args.out}: try again")
    training.remove_leftovers(args.out)
    log = trainer.get_extension("LogReport").log
    if args.resume:
        # What came after an older snapshot is another branch, which ends here.
        write_log(args.out, log)
        for difference in record.differences:
            print(
                f"warning: {difference}: the numbers may differ from those of a run "
                "without a break",
                file=sys.stderr,
            )
    elif again:
        Path(args.out, "log").unlink(missing_ok=True)
    record.start(log)
