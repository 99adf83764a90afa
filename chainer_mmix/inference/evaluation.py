"""How good a trained network is, and where it errs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import softmax

from chainer_mmix.analysis import calibration
from chainer_mmix.analysis.figure import OKABE_ITO, save_figure, shortened
from chainer_mmix.inference.examples import Examples
from chainer_mmix.inference.predictor import Predictor
from chainer_mmix.runs.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NUMBERS = 25  # classes of a matrix whose cells can be read
_MOST_PICTURES = 20
_LONGEST = 30  # characters of a class's name that have room
_LONGEST_TITLE = 14  # above one picture of many


class Evaluation(NamedTuple):
    """The scores of a network for labelled examples.

    Attributes:
        predictor (Predictor): The network.
        examples (Examples): The examples.
        scores (numpy.ndarray): Its logits, float64 of shape (N, C).
    """

    predictor: Predictor
    examples: Examples
    scores: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The predicted labels, of shape (N,)."""
        return self.scores.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probabilities of the predicted labels, of shape (N,)."""
        return softmax(self.scores, axis=1).max(axis=1)

    def values(self) -> dict[str, float]:
        """Returns ``accuracy``, ``nll``, ``ece`` and ``brier``.

        See :mod:`chainer_mmix.analysis.calibration`.
        """
        t = self.examples.labels
        accuracy = float((self.predicted == t).mean())
        return {"accuracy": accuracy, **calibration.measure(self.scores, t)}

    def confusion(self) -> np.ndarray:
        """Counts examples by true class, one a row, and predicted class."""
        from sklearn.metrics import confusion_matrix

        labels = range(len(self.predictor.class_names))
        return confusion_matrix(self.examples.labels, self.predicted, labels=labels)

    def by_class(self, as_text: bool = False) -> Any:
        """Returns precision, recall and F1 of each class that occurs.

        Args:
            as_text (bool): Whether as a table, else as a dict. The default is
                ``False``.
        """
        from sklearn.metrics import classification_report

        t, y = self.examples.labels, self.predicted
        labels = np.union1d(t, y)
        return classification_report(
            *(t, y),
            labels=labels,
            target_names=[self.predictor.class_names[label] for label in labels],
            output_dict=not as_text,
            digits=3,
            zero_division=0,
        )

    def errors(self) -> list[dict[str, Any]]:
        """Lists the wrong predictions, the most confident first."""
        names = self.predictor.class_names
        confidence, y, t = self.confidence, self.predicted, self.examples.labels
        wrong = np.flatnonzero(y != t)
        order = wrong[np.argsort(-confidence[wrong], kind="stable")]
        return [
            {
                "index": int(i),
                "file": self.examples.names[i],
                "class": names[t[i]],
                "predicted": names[y[i]],
                "probability": float(confidence[i]),
            }
            for i in order
        ]


def evaluate(
    predictor: Predictor,
    examples: Examples,
    tell: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Computes the scores of all examples, in minibatches as in validation.

    Args:
        predictor (Predictor): The network.
        examples (Examples): What to evaluate it on.
        tell (callable): Called with a text as each minibatch begins.

    Raises:
        ValueError: If a score is not a number.
        UnreadablePictureError: If a picture cannot be read.
    """
    n, found = len(examples.labels), []
    for start in range(0, n, predictor.batchsize):
        tell(f"evaluating, {start} of {n}")
        stop = min(n, start + predictor.batchsize)
        found.append(predictor.scores([examples.load(i) for i in range(start, stop)]))
    scores = np.concatenate(found).astype(np.float64)
    if not np.isfinite(scores).all():
        i = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ValueError(
            f"the network's output for {examples.names[i]} is not finite: look at the "
            "example, or train in --dtype float32 and at a lower rate"
        )
    return Evaluation(predictor, examples, scores)


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Writes numbers and pictures into a folder.

    Args:
        evaluation (Evaluation): The evaluation.
        out (pathlib.Path): The folder, which must exist.

    Returns:
        list of pathlib.Path: ``evaluation.json``, ``confusion.png``,
        ``reliability.png`` and, if there are errors and images, ``errors.png``.
    """
    predictor, examples = evaluation.predictor, evaluation.examples
    errors = evaluation.errors()
    content = {
        "examples": examples.what,
        "n": len(examples.labels),
        "snapshot": predictor.snapshot.name,
        **evaluation.values(),
        "by_class": evaluation.by_class(),
        "class_names": list(predictor.class_names),
        "confusion": evaluation.confusion().tolist(),
        "errors": errors,
    }
    write_json(out / "evaluation.json", content)
    figures = {
        "confusion.png": plot_confusion(evaluation),
        "reliability.png": plot_reliability(evaluation),
    }
    (out / "errors.png").unlink(missing_ok=True)  # of another evaluation
    if errors and examples.load(0).ndim == 3:
        figures["errors.png"] = plot_errors(evaluation)
    for name, figure in figures.items():
        save_figure(figure, out / name)
    return [out / "evaluation.json", *(out / name for name in figures)]


def plot_confusion(evaluation: Evaluation) -> Figure:
    """Draws the confusion matrix: counts, and as colours the shares of the rows."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    counts = evaluation.confusion()
    names = [shortened(name, _LONGEST) for name in evaluation.predictor.class_names]
    n = len(names)
    inches = min(max(0.42 * n, 3), 16)
    longest = max(map(len, names))
    is_turned = longest > 2
    room = 0.08 * longest  # inches, of a name
    height = inches + 2 + is_turned * room
    figure = Figure(figsize=(inches + 2.2 + room, height), layout="constrained")
    axes = figure.add_subplot()
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    # The root shows single errors.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    size = min(9, 0.8 * 72 * inches / n)  # points, less than a row is high
    axes.set_xticks(range(n), names, rotation=90 * is_turned, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    if n <= _MOST_NUMBERS:
        for i, j in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[i, j] > 0.3 else "black"
            text = {"ha": "center", "va": "center", "fontsize": 8, "color": color}
            axes.text(j, i, str(counts[i, j]), **text)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    accuracy = evaluation.values()["accuracy"]
    axes.set_title(f"{evaluation.examples.what}\naccuracy {accuracy:.1%}")
    return figure


def plot_reliability(evaluation: Evaluation) -> Figure:
    """Draws the accuracy of predictions against their confidence, and how many."""
    from matplotlib.figure import Figure

    bins = calibration.reliability(evaluation.scores, evaluation.examples.labels)
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = np.diff(bins.edges)
    left = bins.edges[:-1]
    filled = bins.count > 0
    top.bar(
        *(left[filled], bins.accuracy[filled], width[filled]),
        align="edge",
        color=OKABE_ITO[2],
        edgecolor="white",
    )
    top.plot([0, 1], [0, 1], color="gray", linestyle=":")
    points = bins.confidence[filled], bins.accuracy[filled]
    top.plot(*points, "o", color=OKABE_ITO[0], markersize=4)
    ece = evaluation.values()["ece"]
    top.set_title(f"{evaluation.examples.what}\ncalibration error {ece:.3f}")
    top.set_ylabel("accuracy")
    top.set_ylim(0, 1.02)
    low.bar(left, bins.count, width, align="edge", color="gray", edgecolor="white")
    low.set_xlim(0, 1)
    low.set_xlabel("confidence")
    low.set_ylabel("examples")
    return figure


def plot_errors(evaluation: Evaluation) -> Figure:
    """Draws the wrong predictions of which the network is most confident."""
    from matplotlib.figure import Figure

    errors = evaluation.errors()[:_MOST_PICTURES]
    images = [np.moveaxis(evaluation.examples.load(e["index"]), 0, -1) for e in errors]
    low, high = min(x.min() for x in images), max(x.max() for x in images)
    n_columns = min(5, len(errors))
    n_rows = -(-len(errors) // n_columns)
    figure = Figure(figsize=(2.3 * n_columns, 3 * n_rows + 0.1), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, error, image in zip(grid.flat, errors, images, strict=False):
        image = (image - low) / max(high - low, 1e-12)
        if image.shape[-1] not in (3, 4):
            image = image[..., 0]
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        names = error["predicted"], error["class"], Path(error["file"]).name
        predicted, true, file = (shortened(str(name), _LONGEST_TITLE) for name in names)
        axes.set_title(
            f"predicted {predicted} ({error['probability']:.2f})\ntrue {true}\n{file}",
            fontsize="small",
        )
    return figure
