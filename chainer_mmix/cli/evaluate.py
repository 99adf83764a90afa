"""``chainer-mmix evaluate``: how good the network of a run is, and where it errs."""

from __future__ import annotations

import argparse
from pathlib import Path

from chainer_mmix.cli import command, predict
from chainer_mmix.cli.argument_types import natural

_DESCRIPTION = """\
Evaluate the trained network of a run: accuracy, negative log-likelihood, calibration
error (ECE), Brier score, precision and recall of each class, and the most confident
errors. A folder gets evaluation.json and, as pictures, the confusion matrix, the
reliability diagram and the most confident errors.
"""
_EPILOG = """\
examples:
  chainer-mmix evaluate result/digits_cnn_manifold_alpha0.2_seed0
      on what the run validated on, as it did
  chainer-mmix evaluate result/pets_resnet50_input_alpha0.2_seed0 --dataset folder:new
      on other pictures, in folders named by their classes
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds this command to those of the console script."""
    parser = command.add_parser(
        *(commands, "evaluate", _evaluate, predict.ERRORS),
        help="measure the network of a run and show its errors",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    predict.add_run_arguments(parser)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="what to evaluate on: a name, folder:PATH or npz:FILE as for training "
        "(default: the dataset of the run)",
    )
    parser.add_argument(
        "--part",
        choices=("train", "validation", "test"),
        help="which part of it (default: what the run validated on; of another "
        "dataset, the first there is of test, validation and train)",
    )
    parser.add_argument(
        "--data-root",
        metavar="FOLDER",
        help="where the files of a named dataset are (default: as in the run)",
    )
    parser.add_argument(
        "--errors",
        type=natural,
        default=10,
        metavar="N",
        help="how many of the most confident errors to print (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="where to write (default: in the run's folder, evaluation, with the names "
        "of --dataset, --part and --which if they are given: evaluation_train)",
    )
    predict.add_work_arguments(parser)


def default_out(args: argparse.Namespace) -> Path:
    """Names the folder by what is evaluated."""
    from chainer_mmix.datasets import short_name

    words = ["evaluation"]
    if args.dataset is not None:
        words.append(f"of-{short_name(args.dataset)}")
    if args.part is not None:
        words.append(args.part)
    if args.which != "best":
        words.append(args.which)
    return Path(args.run_folder, "_".join(words))


def _evaluate(args: argparse.Namespace) -> None:
    from chainer_mmix.inference.evaluation import evaluate, write_evaluation
    from chainer_mmix.inference.examples import find_examples
    from chainer_mmix.printable import printable
    from chainer_mmix.progress import Progress
    from chainer_mmix.runs.files import RunError

    predictor = predict.load(args)
    predictor.batchsize = args.batchsize or predictor.batchsize
    out = Path(args.out or default_out(args))
    examples = find_examples(predictor, args.dataset, args.part, args.data_root)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RunError(
            f"--out {out} cannot be made ({e.strerror}): name another folder"
        ) from e
    n_batch = -(-len(examples.labels) // predictor.batchsize)
    with Progress(n_batch, args.quiet) as tell:
        evaluation = evaluate(predictor, examples, tell)
    files = write_evaluation(evaluation, out)
    values = evaluation.values()
    print(f"{len(examples.labels)} examples, {examples.what}; {predictor.snapshot}")
    print(", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    print(f"\n{evaluation.by_class(as_text=True).rstrip()}\n")
    errors = evaluation.errors()
    if shown := errors[: args.errors]:
        print(f"The {len(shown)} most confident of {len(errors)} errors:")
    elif not errors:
        print("No errors.")
    for error in shown:
        print(
            printable(
                f"  {error['file']}: {error['predicted']} "
                f"({error['probability']:.3f}), is {error['class']}"
            )
        )
    print(f"\nIn {out}: {', '.join(file.name for file in files)}")
