"""Trains a network with Manifold Mixup, with input mixup, or without mixing."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import chainer

from chainer_mmix import datasets, models, training
from chainer_mmix.cli import options, recipes
from chainer_mmix.cli.arguments import fill_in
from chainer_mmix.cli.parser import Parser
from chainer_mmix.cli.prepare import prepare
from chainer_mmix.cli.ranks import check_ranks, ending_all, find_ranks, quiet_ranks
from chainer_mmix.cli.resume import parse
from chainer_mmix.cli.streams import lasting_streams, plain_warnings
from chainer_mmix.lookup import lookup
from chainer_mmix.training.extensions import DivergedError
from chainer_mmix.training.multinode import Ranks, Watchdog
from chainer_revive.cpu import compiled
from chainer_revive.gpu_check import faults

SCRIPT = "train_manifoldmixup.py"

_DESCRIPTION = """\
Train a network with Manifold Mixup: in each minibatch, the hidden states at a randomly
drawn layer are mixed, and so is the loss (arXiv 1806.05236).

The output folder gets: log (all numbers of each epoch), loss.png and accuracy.png,
mixup.json (how often each layer was drawn, and which lambda), run.json (arguments,
versions, device, result), the two newest snapshots and that of the best epoch.
"""
_EPILOG = """\
main/accuracy in the table is weighted over the labels of both partners by lambda, as
the loss is. Validation is without mixing, on the validation set if there is one, else
on the test set; run.json says which.

examples:
  {command}
      ResNet-50 on scikit-learn's digits, on the CPU, in a few minutes
  {command} --gpu 0 --dataset cifar10 --alpha 2 --augment \\
      --optimizer sgd --weight-decay 1e-4 --lr-drop 150 225
      CIFAR-10 on a GPU, with the paper's alpha and optimizer
  {command} --model cnn --mixup none --train-size 200
      a small network on 200 digits without mixing; --mixup manifold to compare
  {command} --dataset folder:pictures --validation-split 0.2 --augment --workers 2
      pictures of one's own, one folder a class
  {command} --resume --epoch 40
      go on with the run of the same arguments, up to epoch 40
  {command} --resume auto
      begin, or go on where the last try ended: what a job scheduler starts again
"""


@functools.cache
def get_parser(prog: str = SCRIPT) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command = f"python {prog}" if prog == SCRIPT else prog
    parser = Parser(
        prog=prog,
        usage="%(prog)s [option ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(command=command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None, prog: str = SCRIPT) -> int:
    """Runs the command line.

    Args:
        argv (sequence of str): The arguments; those of the process by default.
        prog (str): What the command is called in help, errors and record.

    Returns:
        int: 0; 1 when the training diverged or a file could not be written; 130, 143 or
        129 when Ctrl-C, SIGTERM or SIGHUP stopped it. Bad arguments exit with 2.
    """
    parser = get_parser(prog)
    words = list(sys.argv[1:] if argv is None else argv)
    with quiet_ranks(errors=True):
        given = parser.parse_args(words)
    try:
        ranks = find_ranks(given, words)
    except (ImportError, ValueError) as e:
        with ending_all(e):
            parser.error(" ".join(str(e).split()))  # one line
    if given.recipe == "list":
        with quiet_ranks():
            print(recipes.table())
        return 0
    with quiet_ranks():
        try:
            check_ranks(given, words, ranks)
            args = ranks.on_first(lambda: parse(parser, words, _find_out))
        except ValueError as e:
            refuse(parser, ranks, e)
        dtype = training.DTYPES[args.dtype]
        config = chainer.using_config("dtype", dtype)
        with lasting_streams(), config, plain_warnings(prog, ranks.is_first):
            return train(parser, args, words, ranks)


def refuse(parser: argparse.ArgumentParser, ranks: Ranks, error: Exception) -> NoReturn:
    """Ends the command, on all ranks, with what was wrong in one line."""
    text = " ".join(str(error).split())
    if ranks.is_first and text:
        parser.error(text)
    sys.exit(2)


def train(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    words: Sequence[str],
    ranks: Ranks,
) -> int:
    """Trains as the arguments say; see :func:`main`."""
    compiled.before_compiling = _tell_of_compiling
    watchdog = Watchdog(ranks, args.rank_timeout)
    stop = functools.partial(_stop, parser.prog, args)
    try:
        command = f"{parser.prog} {shlex.join(words)}"
        trainer, record, locks = prepare(args, command, ranks)
        if training.is_done(trainer):
            watchdog.close()
            return finish(args, trainer)
    except (ImportError, OSError, ValueError) as e:
        try:
            ranks.fail(e)
        except (ImportError, OSError, ValueError) as error:
            watchdog.close()
            refuse(parser, ranks, error)
    except KeyboardInterrupt:
        return _end(ranks, stop("interrupted", code=130))
    watchdog.watch(trainer)
    try:
        training.run(trainer, record, ranks)
    except datasets.UnreadablePictureError as e:
        remedy = (
            "put a whole picture there and go on with --resume, or train anew with "
            "--skip-corrupt"
        )
        return _end(ranks, stop(f"the training stopped: {e}", remedy=remedy))
    except training.WorkerDiedError as e:
        remedy = "go on with --resume, if need be with fewer --workers"
        return _end(ranks, stop(f"the training failed: {e}", remedy=remedy))
    except OSError as e:
        on = f" on rank {ranks.rank}" if ranks.rank else ""
        what = f"{e.filename}: {e.strerror}" if e.filename else e.strerror or str(e)
        return _end(ranks, stop(f"the training failed{on}: {what}"))
    except KeyboardInterrupt:
        return _end(ranks, stop("interrupted", code=130))
    except (DivergedError, training.MetricError, training.StoppedError) as e:
        # On all ranks alike.
        watchdog.close()
        code = 128 + e.signum if isinstance(e, training.StoppedError) else 1
        if not ranks.is_first:
            return code
        if isinstance(e, training.StoppedError):
            return stop(str(e), code=code)
        if isinstance(e, training.MetricError):
            return stop(str(e), remedy="name another --keep-best")
        remedy = f"try a lower --lr than {args.lr:g}, or a larger --batchsize"
        return stop(f"the training failed: {e}", remedy=remedy)
    except (RuntimeError, MemoryError) as e:
        if (fault := faults.sentence(e)) is None:
            raise
        return _end(ranks, stop(f"the training failed: {fault}"))
    finally:
        locks.close()
    watchdog.close()
    if record is None:
        return 0
    result = record.content
    on_test = ""
    if result["test_accuracy"] is not None:
        on_test = f", on the test set {_percent(result['test_accuracy'])}"
    print(
        f"best {result['data']['held_out']} accuracy "
        f"{_percent(result['best_accuracy'])} (epoch {result['best_epoch']}), final "
        f"{_percent(result['final_accuracy'])}{on_test}; log, pictures and snapshots "
        f"are in {trainer.out}"
    )
    return 0


def _tell_of_compiling() -> None:
    print("compiling loops for this machine, once: some seconds", flush=True)


def _end(ranks: Ranks, code: int) -> int:
    """Ends the other ranks, which know nothing of what has stopped this one."""
    ranks.abort(code)
    return code


def finish(args: argparse.Namespace, trainer) -> int:
    """Does what is left of a run that is trained: its analysis, if it is wanted."""
    if args.analyse and training.analyse_finished(trainer):
        print(f"analysed the network of {args.resume}")
    else:
        print(
            f"nothing to do: {args.resume} is from the end of epoch "
            f"{trainer.updater.epoch}, and --epoch is {args.epoch}; "
            "give a higher --epoch to go on"
        )
    return 0


def _stop(
    prog: str, args: argparse.Namespace, reason: str, code: int = 1, remedy: str = ""
) -> int:
    """Says why a run has ended and how it goes on; returns the exit code."""
    out = args.out
    try:
        last = out and training.find_snapshot(out)
    except OSError:
        last = None
    kept = f"the last good snapshot is {last}" if last else "no snapshot yet"
    remedy = remedy or f"go on with {prog} --resume {shlex.quote(str(out))}"
    print(f"{prog}: {reason}; {kept}; {remedy}", file=sys.stderr)
    return code


def _find_out(args: argparse.Namespace) -> str:
    """Returns the output folder that arguments mean."""
    if args.out is None:
        args = argparse.Namespace(**vars(args))
        fill_in(args, lookup(models.MODELS, args.model, "model"))
    return args.out


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"
