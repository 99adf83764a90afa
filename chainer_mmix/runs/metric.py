"""The number of their logs by which runs are compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chainer_mmix.runs.files import RunError
from chainer_mmix.runs.run import Run

# How evaluators are called, the best guess first. A Trainer numbers those after the
# first of a name.
_EVALUATORS = ("validation", "valid", "val", "dev", "test", "eval", "evaluation")
_NAMES = "|".join(_EVALUATORS)
_EVALUATOR = re.compile(rf"(?:({_NAMES})(?:_[^/]+)?/(?:main/)?|({_NAMES})_)")
_OTHER_EVALUATOR = re.compile(r"[^/]+/main/")

_NO_METRIC = re.compile(r"epoch|iteration|elapsed_time|lr|main/lam|mixup/.*")
_IN_TRAINING = "it says nothing of new data, and under mixing little of these"

_SHARES = ("accuracy", "acc")
# Words in the names of metrics, the best guess first.
_HIGHER = (
    *("accuracy", "acc", "miou", "map", "top1", "f1", "auc", "iou", "r2", "score"),
    *("precision", "recall", "bleu", "psnr", "ssim", "top5", "ap", "auroc", "dice"),
)
_LOWER = (
    *("error", "err", "rmse", "mse", "mae", "perplexity", "ppl", "wer", "cer", "fid"),
    *("mape", "divergence", "kl", "distance", "loss", "logloss", "entropy"),
    *("crossentropy", "xent", "bce", "nll", "brier", "ece"),
)


@dataclass(frozen=True)
class Metric:
    """A number of the logs by which runs are compared.

    Attributes:
        name (str): What it is called, such as ``"accuracy"``.
        keys (mapping): The key under which each run has logged it.
        lower_is_better (bool): Whether less is better.
        is_share (bool): Whether it is the share of what is right, an accuracy in
            [0, 1], which goes as an error in percent too.
        flaws (tuple of str): What is doubtful about it, a line each.
    """

    name: str
    keys: Mapping[Run, str]
    lower_is_better: bool
    is_share: bool
    flaws: Sequence[str] = ()

    @property
    def key(self) -> str:
        """The key, that of the first run where they differ."""
        return next(iter(self.keys.values()))

    def series(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Returns epochs and values of a run, as :meth:`Run.series` does."""
        return run.series(self.keys[run])

    @property
    def held_out(self) -> str | None:
        """``"validation"`` or ``"test"``, the set that all values are from, if known.

        What the training command logs as ``validation`` may be either.
        """
        sets = {run.data.get("held_out") for run in self.keys}
        known = set(self.keys.values()) == {f"validation/main/{self.name}"}
        return sets.pop() if known and len(sets) == 1 else None

    @property
    def title(self) -> str:
        """The title of its curves."""
        capitalised = f"{self.name[:1].upper()}{self.name[1:]}"
        if self.held_out is not None:
            return f"{capitalised} on the {self.held_out} set"
        return f"Validation {self.name}" if self.is_evaluated else capitalised

    @property
    def is_evaluated(self) -> bool:
        """Whether all values are an evaluator's, as far as the keys tell."""
        return all(map(_prefix, self.keys.values()))

    @property
    def is_loss(self) -> bool:
        """Whether it is a loss."""
        return self.name.split("/")[-1] == "loss"

    def loss_key(self, run: Run) -> str:
        """Returns the key of the loss on the same data."""
        prefix = _prefix(self.keys[run])
        name = self.keys[run].removeprefix(prefix)
        beside = f"{prefix}{name[: name.rfind('/') + 1]}loss"
        return beside if beside in run.keys else f"{prefix}loss"

    def training_loss_key(self, run: Run) -> str:
        """Returns the key of the same loss in training."""
        key = self.loss_key(run)
        own = key.partition("/")[2] or key.removeprefix(_prefix(key))
        return own if own in run.keys else "main/loss"


def lower_is_better(key: str) -> bool:
    """Tells by its name whether less of a number of the log is better."""
    return _word(_name(key)) in _LOWER


def choose_metric(
    runs: Sequence[Run], wanted: str | None = None, lower_is_better: bool | None = None
) -> Metric:
    """Chooses the number by which runs are compared.

    By default it is the accuracy on the validation data; where there is none, another
    measure of quality, such as ``miou``, else the loss. Data of an evaluator called
    ``validation`` come before others, and all of them before what is measured in
    training, which is a flaw.

    Args:
        runs (sequence of Run): The runs.
        wanted (str): A key of the logs, such as ``"val/main/miou"``, or the end of one,
            such as ``"miou"``. The default is the best guess.
        lower_is_better (bool): Whether less is better. The default is what its name
            says.

    Returns:
        Metric: The number.

    Raises:
        RunError: If the runs have no such number in common.
    """
    found = [_find(run, wanted) for run in runs]
    for run, keys in zip(runs, found, strict=True):
        if not keys:
            what = "number to compare" if wanted is None else f"metric {wanted!r}"
            raise RunError(
                f"{run.path / 'log'} has no {what}, only {', '.join(run.keys)}: train "
                "with an Evaluator, or choose one of these as the metric"
            )
    common = [key for key in found[0] if all(key in keys for keys in found)]
    if common:
        # In all runs under the same key.
        key = min(common, key=_rank)
        return _metric(dict.fromkeys(runs, key), lower_is_better)
    names = [{_name(key): key for key in sorted(k, key=_rank)[::-1]} for k in found]
    shared = [key for name, key in names[0].items() if all(name in n for n in names)]
    if not shared:
        texts = (
            f"{run.path}: {', '.join(k)}" for run, k in zip(runs, found, strict=True)
        )
        raise RunError(
            f"the runs have no metric in common ({'; '.join(texts)}): compare runs of "
            "one task"
        )
    name = _name(min(shared, key=_rank))
    by_key: dict[str, list[str]] = {}
    chosen = {run: keys[name] for run, keys in zip(runs, names, strict=True)}
    for run, key in chosen.items():
        by_key.setdefault(key, []).append(str(run.path))
    texts = (f"{key} ({', '.join(paths)})" for key, paths in by_key.items())
    flaw = f"{name} has several keys, which may mean other data: {', '.join(texts)}"
    return _metric(chosen, lower_is_better, (flaw,))


def _metric(
    keys: Mapping[Run, str], lower_is_better: bool | None, flaws: Sequence[str] = ()
) -> Metric:
    name = _name(next(iter(keys.values())))
    if lower_is_better is None:
        lower_is_better = _word(name) in _LOWER
        if _word(name) is None:
            flaws = (
                *flaws,
                f"the name {name} does not say whether more is better, which is "
                "assumed: if less is, say so (--best lowest)",
            )
    series = {run: run.series(key)[1] for run, key in keys.items()}
    are_shares = {
        run: bool(((values >= 0) & (values <= 1) | ~np.isfinite(values)).all())
        for run, values in series.items()
    }
    is_share = _word(name) in _SHARES and not lower_is_better
    if is_share and len(set(are_shares.values())) > 1:
        paths = (str(run.path) for run in keys if not are_shares[run])
        flaws = (
            *flaws,
            f"{name} is beyond [0, 1] in {', '.join(paths)}, as in percent, but not in "
            "the other runs: they cannot be compared",
        )
    is_share = is_share and all(are_shares.values())
    trained = sorted({key for key in keys.values() if not _prefix(key)})
    if trained:
        flaws = (
            *flaws,
            f"{', '.join(trained)} is measured in training: {_IN_TRAINING}",
        )
    return Metric(name, keys, lower_is_better, is_share, flaws)


def _find(run: Run, wanted: str | None) -> list[str]:
    if wanted is None:
        evaluated = [key for key in run.keys if _prefix(key)]
        return evaluated or [k for k in run.keys if not _NO_METRIC.fullmatch(k)]
    if wanted in run.keys:
        return [wanted]
    evaluated = [k for k in run.keys if _prefix(k) and _name(k) == wanted]
    return evaluated or [key for key in run.keys if key.endswith(f"/{wanted}")]


def _prefix(key: str) -> str:
    """Returns the beginning of a key that names an evaluator, none if there is none."""
    match = _EVALUATOR.match(key) or _OTHER_EVALUATOR.match(key)
    return match[0] if match else ""


def _name(key: str) -> str:
    return key[len(_prefix(key)) :] if _prefix(key) else key.removeprefix("main/")


def _word(name: str) -> str | None:
    """Returns the word in a metric's name that tells what it is."""
    for text in (name.rpartition("/")[2], name):
        parts = re.split(r"[^a-z0-9]+", text.lower())
        parts += [part.rstrip("0123456789") for part in parts]  # of loss2 and acc5
        if parts[-1] in _SHARES:
            return parts[-1]
        # First these: less is better of top1_error, f1_loss and brier_score.
        word = next((word for word in (*_LOWER, *_HIGHER) if word in parts), None)
        if word is not None:
            return word
    return None


def _rank(key: str) -> tuple:
    """Orders keys: the best guess first."""
    name, word = _name(key), _word(_name(key))
    words = [*_HIGHER, *_LOWER]
    kinds = (name.lower() in _HIGHER, word in _HIGHER, word is not None, True)
    match = _EVALUATOR.match(key)
    return (
        "/" in name,  # one of many, such as the accuracy of each class
        kinds.index(True),
        words.index(word) if word else 0,
        _EVALUATORS.index(match[1] or match[2]) if match else len(_EVALUATORS),
        key,
    )
