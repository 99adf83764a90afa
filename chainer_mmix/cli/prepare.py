"""Builds everything that a training needs from the arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence

import chainer
from chainer.training import Trainer
from chainer.training.extensions import observe_value

import chainer_mmix
from chainer_mmix import ManifoldMixupClassifier, datasets, models, training
from chainer_mmix.cli import options
from chainer_mmix.cli.argument_types import parse_every
from chainer_mmix.cli.arguments import check_keep_best, check_pasting, describe, fill_in
from chainer_mmix.cli.data import find_dataset, load_data
from chainer_mmix.cli.options import naming
from chainer_mmix.cli.output import (
    begin,
    check_folder,
    open_output,
    snapshot_to_resume,
)
from chainer_mmix.cli.ranks import find_device, scale_rate, warn_of_one_rank
from chainer_mmix.cli.resume import record_of
from chainer_mmix.lookup import lookup
from chainer_mmix.runs.metric import lower_is_better
from chainer_mmix.runs.record import RunRecord
from chainer_mmix.training.extensions import MixupOff, MixupShift, TensorBoardReport
from chainer_mmix.training.multinode import Ranks, synchronize_statistics
from chainer_revive import cudnn, registry


def prepare(args: argparse.Namespace, command: str, ranks: Ranks) -> tuple:
    """Checks all arguments and builds everything, the output folder last.

    Args:
        args (argparse.Namespace): What the parser gave; defaults are filled in.
        command (str): The command line, for the record.
        ranks (Ranks): The processes that train together, all of which prepare it.

    Returns:
        tuple: The Trainer, the :class:`~chainer_mmix.training.RunRecord` and the lock
        of the output folder; no record on other ranks than the first, and nothing to
        release there or where nothing is left to train.

    Raises:
        ImportError, OSError, ValueError: If something is wrong, in one sentence.
    """
    tensorboard = TensorBoardReport() if args.tensorboard else None
    device = _use_device(args, ranks)
    fill_in(args, lookup(models.MODELS, args.model, "model"))
    rate_scale = scale_rate(args, options.LR_SCALING, ranks.size)
    if ranks.size == 1:
        warn_of_one_rank(args)
    dataset = find_dataset(args)
    asked = args.resume
    if asked:
        args.resume = ranks.on_first(lambda: snapshot_to_resume(asked, args.out, ranks))
    again = bool(asked) and args.resume is None
    arguments = vars(args) | {"device": str(device)}
    training.set_seed(args.seed, device)
    classifier = make_classifier(args, dataset.n_class, ranks)
    ranks.on_first(lambda: check_folder(args, arguments, again, ranks))
    splits, train, data = load_data(args, dataset, classifier, ranks)
    classifier.to_device(device)
    device.use()
    trainer = make_trainer(args, classifier, train, splits, device, ranks, rate_scale)
    if tensorboard and ranks.is_first:
        trainer.extend(tensorboard)
    if args.pretrained and not args.resume:
        with naming("pretrained"):
            models.load_pretrained(classifier.predictor, args.pretrained)
    if args.resume:
        _load(args, trainer, ranks)
        if training.is_done(trainer):
            return trainer, None, None

    locks = contextlib.ExitStack()
    records = []

    def open_() -> None:
        record = RunRecord(
            args.out,
            arguments,
            command,
            device,
            args.seed,
            resumed_from=args.resume,
            epoch=epochs_done(trainer.updater),
            setting=options.setting_of(args, ranks.size),
            data=data,
            ranks=ranks.size,
        )
        locks.callback(open_output(args.out, ranks).release)
        try:
            begin(trainer, record, args, asked, again)
        except BaseException:
            locks.close()
            raise
        records.append(record)

    ranks.on_first(open_)
    if not records:
        return trainer, None, locks
    (record,) = records
    print(f"device: {device}, {record.content['device_name']}")
    if isinstance(device, chainer.backend.GpuDevice):
        print(cudnn.describe())
    print(describe(args, data, ranks.size, rate_scale))
    return trainer, record, locks


def _use_device(args: argparse.Namespace, ranks: Ranks) -> chainer.backend.Device:
    with naming("gpu", "device"):
        device = find_device(args, ranks)
    if isinstance(device, chainer.backend.GpuDevice):
        device.use()
        registry.decide()
    return device


def make_classifier(
    args: argparse.Namespace, n_class: int, ranks: Ranks
) -> ManifoldMixupClassifier:
    """Makes the network and how it is trained on mixtures.

    Raises:
        ValueError: If an argument does not fit the network or the number of classes.
    """
    bounds = "cutmix_minmax", "resizemix_minmax"
    with naming(*[name for name in bounds if getattr(args, name)]):
        policy = chainer_mmix.MixupPolicy(
            args.alpha,
            args.layer_mix,
            per=args.per,
            fold=args.fold,
            prob=args.mixup_prob,
            cutmix_alpha=args.cutmix_alpha,
            switch_prob=args.switch_prob,
            seed=args.seed,
            fixed_lam=args.fixed_lam,
            cutmix_minmax=args.cutmix_minmax,
            fmix_alpha=args.fmix_alpha or 0.0,
            resizemix_minmax=args.resizemix_minmax,
            common_draw=args.common_draw,
        )
    if args.top_k is not None and args.top_k >= n_class:
        most = f"choose at most {n_class - 1}" if n_class > 2 else "leave it out"
        raise ValueError(
            f"--top-k {args.top_k} is not below the {n_class} classes: {most}"
        )
    classifier = ManifoldMixupClassifier(
        models.make_model(
            args.model,
            n_class,
            stem=args.stem,
            downsample_fb=args.downsample_fb,
            published=args.published,
            stem_stride=args.stem_stride,
        ),
        mixup_hidden=args.mixup != "none",
        lossfun=options.LOSSES[args.loss],
        policy=policy,
        label_smoothing=args.label_smoothing,
        clean_weight=args.clean_weight or 0.0,
        top_k=args.top_k,
    )
    check_keep_best(args.keep_best, classifier)
    if args.sync_bn and ranks.communicator is not None:
        with naming("sync_bn"):
            synchronize_statistics(classifier, ranks.communicator)
    return classifier


def make_trainer(
    args: argparse.Namespace,
    classifier: ManifoldMixupClassifier,
    train: Sequence,
    splits: datasets.Splits,
    device: chainer.backend.Device,
    ranks: Ranks,
    rate_scale: float,
) -> Trainer:
    """Makes the Trainer, with all that it does while and after it trains."""
    optimizer = training.make_optimizer(
        args.optimizer,
        classifier,
        args.lr,
        args.weight_decay,
        args.momentum,
        args.nesterov,
        args.grad_clip,
    )
    training.scale_loss(optimizer, args.loss_scale)
    every = args.snapshot_every
    trainer = training.build_trainer(
        optimizer,
        train,
        splits.held_out,
        epoch=args.epoch,
        batchsize=args.batchsize,
        out=args.out,
        device=device,
        lr_drop=args.lr_drop,
        warmup=args.warmup or 0,
        cosine=args.cosine,
        quiet=args.quiet,
        graph=args.graph,
        data_on_device=args.data_on_device,
        workers=args.workers,
        ranks=ranks,
        rate_scale=rate_scale,
        n_retains=args.keep,
        snapshot_every=None if every is None else parse_every(every),
        keep_best=(args.keep_best, lower_is_better(args.keep_best)),
        early_stopping=args.early_stopping,
    )
    policy = classifier.policy
    if policy.pastes:
        option = options.pasting(args)[0]
        check_pasting(classifier, splits.held_out[0], device, option)
    at_end = {"epoch": args.epoch, "batchsize": args.batchsize, "device": device}
    if args.analyse and ranks.is_first:
        names = splits.class_names
        training.analyse(trainer, train, splits.held_out, class_names=names, **at_end)
    if splits.test is not None and splits.test is not splits.held_out:
        training.evaluate_at_end(trainer, splits.test, **at_end, ranks=ranks)
    batchsize = args.batchsize * ranks.size
    _schedule(trainer, args, policy, -(-args.epoch * len(train) // batchsize))
    return trainer


def _schedule(trainer, args: argparse.Namespace, policy, n_iteration: int) -> None:
    """Lets the policy change with time, as the arguments say, and logs it."""
    for attribute, end in (("alpha", args.alpha_end), ("prob", args.mixup_prob_end)):
        if end is not None:
            values = getattr(policy, attribute), end
            shift = MixupShift(attribute, values, (0, n_iteration), policy)
            trainer.extend(shift, name=f"shift_{attribute}")
            trainer.extend(
                observe_value(
                    f"mixup/{attribute}",
                    lambda _, name=attribute: getattr(policy, name),
                ),
                name=f"observe_{attribute}",
            )
    if args.mixup_off_epoch is not None:
        trainer.extend(MixupOff(args.mixup_off_epoch))


def _load(args: argparse.Namespace, trainer: Trainer, ranks: Ranks) -> None:
    """Loads the snapshot that the run goes on from."""
    with naming("resume"):
        # Others need not see the folder.
        members = ranks.on_first(lambda: training.read_snapshot(args.resume))
        try:
            training.load_snapshot(args.resume, trainer, members)
        except training.SnapshotError as e:
            folder = os.path.dirname(args.resume) or "."
            if record_of(folder):
                raise
            raise ValueError(
                f"{e}; {folder} has no run.json from which to take them: give --model "
                "and the run's other options"
            ) from e
    if ranks.size == 1:
        return
    if not trainer.get_extension("StopOnSignal").can_go_on(trainer):
        raise ValueError(
            f"{args.resume} was saved in the middle of an analysis, which one "
            "process makes: go on with one, not with ranks"
        )
    if training.is_done(trainer) and args.analyse and not training.is_analysed(trainer):
        raise ValueError("--analyse of a finished run takes one process, not ranks")


def epochs_done(updater) -> float:
    """Returns how many epochs are done, with a share of one in the middle of it."""
    whole = updater.is_new_epoch or updater.iteration == 0
    return updater.epoch if whole else round(updater.epoch_detail, 4)
