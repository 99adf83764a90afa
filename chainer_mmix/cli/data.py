"""The data of a training, as the arguments say."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainer_mmix import ManifoldMixupClassifier, datasets
from chainer_mmix.cli.augmentation import check_image, transforms_of
from chainer_mmix.cli.options import naming
from chainer_mmix.cli.resume import check_same_data, record_of
from chainer_mmix.mixing import Remix
from chainer_mmix.training.multinode import Ranks


def find_dataset(args: argparse.Namespace) -> datasets.Dataset:
    """Finds the data set, without loading it."""
    with naming("dataset"):
        return datasets.find(
            args.dataset,
            data_root=args.data_root,
            size=args.size,
            validation_split=args.validation_split,
            seed=args.seed,
            skip_corrupt=args.skip_corrupt,
        )


def load_data(
    args: argparse.Namespace,
    dataset: datasets.Dataset,
    classifier: ManifoldMixupClassifier,
    ranks: Ranks,
) -> tuple[datasets.Splits, Sequence, dict[str, Any]]:
    """Loads the data and prepares the classifier for them.

    It learns how to standardise images and how frequent each class is.

    Returns:
        tuple: The splits, the training examples with the transforms that are drawn
        anew each time, and what the record says of the data.

    Raises:
        ValueError: If the data do not fit the arguments, or are not those of the run
            that is resumed.
    """
    splits = ranks.in_turn(
        lambda: datasets.load_splits(
            dataset,
            name=args.dataset,
            train_size=args.train_size,
            label_noise=args.label_noise,
            augment=args.augment,
            seed=args.seed,
        )
    )
    train, held_out = splits.train, splits.held_out
    if held_out[0][0].ndim != 3:
        raise ValueError(
            f"{args.dataset} holds the rows of a table, x of shape "
            f"(N, {len(held_out[0][0])}), and every --model takes images: save x of "
            "shape (N, C, H, W), or train a network of your own from Python (--dataset)"
        )
    data: dict[str, Any] = {
        "n_train": len(train),
        "n_held_out": len(held_out),
        "held_out": splits.held_out_name,
        "class_names": list(splits.class_names),
    }
    if args.resume:
        ranks.on_first(lambda: check_same_data(args.resume, data))
    data |= datasets.describe_inputs(held_out)
    if args.remix_kappa is not None:
        classifier.remix = _remix(args, train, dataset.n_class)
    constants = _standardise(args, classifier.predictor, train)
    if constants:
        data["standardise"] = constants
    transforms = transforms_of(args, constants.get("mean", [0.0]))
    check_image(transforms, held_out[0][0])
    if args.batchsize * ranks.size > len(train):
        on = f" on {ranks.size} ranks" if ranks.size > 1 else ""
        raise ValueError(
            f"--batchsize {args.batchsize}{on} is more than the {len(train)} training "
            "examples: choose a smaller one"
        )
    return splits, datasets.transformed(train, list(transforms.values())), data


def _remix(args: argparse.Namespace, train: Sequence, n_class: int) -> Remix:
    labels = datasets.labels_of(datasets.without_augmentation(train))
    counts = np.bincount(labels, minlength=n_class)
    ratio = counts.max() / counts[counts > 0].min()
    if ratio < args.remix_kappa and not args.resume:
        raise ValueError(
            f"--remix-kappa {args.remix_kappa:g} changes nothing: the largest "
            f"class has {ratio:.3g} times as many training images as the "
            "smallest; choose a lower one, or leave it out"
        )
    tau = 0.5 if args.remix_tau is None else args.remix_tau
    return Remix(counts, args.remix_kappa, tau)


def _standardise(
    args: argparse.Namespace, predictor: Any, train: Sequence
) -> dict[str, list[float]]:
    """Has a predictor standardise its input, if that is wanted.

    Returns:
        dict: The constants, ``mean`` and ``std``, if there are any: those in the record
        of a run that is resumed, or those of the training images.
    """
    if args.standardise is None:
        return {}
    known = {}
    if args.resume:
        data = record_of(os.path.dirname(args.resume)).get("data", {})
        known = data.get("standardise", {})
    if not known:
        with naming("standardise"):
            plain = datasets.without_augmentation(train)
            found = datasets.standardisation(args.standardise, plain)
        if found is None:
            predictor.standardise(None, None)
            return {}
        known = {key: list(values) for key, values in found._asdict().items()}
    predictor.standardise(**known)
    return known
