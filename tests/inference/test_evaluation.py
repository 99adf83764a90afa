import json

import numpy as np
import pytest
from matplotlib import image as matplotlib_image
from PIL import Image
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix

from chainer_mmix import datasets
from chainer_mmix.inference import load_predictor
from chainer_mmix.inference.evaluation import (
    Evaluation,
    evaluate,
    plot_confusion,
    plot_errors,
    write_evaluation,
)
from chainer_mmix.inference.examples import Examples, find_examples


def test_the_run_is_evaluated_on_what_it_validated_on(digits_run):
    predictor = load_predictor(digits_run, "final")
    found = evaluate(predictor, find_examples(predictor))
    last = json.loads((digits_run / "log").read_text())[-1]
    values = found.values()
    assert values["accuracy"] == pytest.approx(last["validation/main/accuracy"], 1e-6)
    assert values["nll"] == pytest.approx(last["validation/main/loss"], 1e-5)
    x, t = zip(*datasets.get_digits()[1], strict=True)
    assert found.examples.labels.tolist() == list(t)
    scores = predictor.scores(x).astype(float)
    assert values["accuracy"] == accuracy_score(t, scores.argmax(1))
    np.testing.assert_array_equal(
        found.confusion(), confusion_matrix(t, scores.argmax(1))
    )
    nll = -log_softmax(scores, 1)[np.arange(len(t)), list(t)].mean()
    assert values["nll"] == pytest.approx(nll)


def test_errors_begin_with_the_most_certain(digits_run):
    predictor = load_predictor(digits_run)
    found = evaluate(predictor, find_examples(predictor))
    errors = found.errors()
    assert len(errors) == round((1 - found.values()["accuracy"]) * 355)
    certain = [error["probability"] for error in errors]
    assert certain == sorted(certain, reverse=True) and certain[0] > certain[-1]
    p = predictor(np.stack([x for x, _ in datasets.get_digits()[1]]))
    for error in errors[:3]:
        row, label = p[error["index"]], datasets.get_digits()[1][error["index"]][1]
        assert error["file"] == f"test[{error['index']}]"
        assert (error["class"], error["predicted"]) == (str(label), str(row.argmax()))
        assert label != row.argmax()
        assert error["probability"] == pytest.approx(row.max())


def test_files_show_the_same(digits_run, tmp_path):
    predictor = load_predictor(digits_run)
    found = evaluate(predictor, find_examples(predictor))
    files = write_evaluation(found, tmp_path)
    names = ["evaluation.json", "confusion.png", "reliability.png", "errors.png"]
    assert [path.name for path in files] == names
    content = json.loads(files[0].read_text())
    assert content["n"] == np.sum(content["confusion"]) == 355
    diagonal = np.trace(content["confusion"])
    assert content["accuracy"] == pytest.approx(diagonal / 355)
    assert content["by_class"]["3"]["support"] == 36
    for path in files[1:]:
        assert matplotlib_image.imread(path).std() > 0.05


@pytest.mark.parametrize("n", [2, 10, 60])
def test_the_confusion_matrix_has_room_beside_long_names(digits_run, n):
    predictor = load_predictor(digits_run)
    predictor.class_names = [f"{k}, {'a long name ' * 4}" for k in range(n)]
    examples = Examples("the validation set of pets", [], np.arange(n), None)
    figure = plot_confusion(Evaluation(predictor, examples, np.eye(n)))
    figure.draw_without_rendering()
    axes, bar = figure.axes
    assert axes.get_window_extent().height > 250
    texts = [axes.title, axes.yaxis.label, bar.yaxis.label, *axes.get_xticklabels()]
    for text in texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_the_titles_of_errors_are_whole_and_lie_over_no_image(digits_run):
    predictor = load_predictor(digits_run)
    found = evaluate(predictor, find_examples(predictor))
    figure = plot_errors(found)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert len(boxes) == 20
    for box in boxes:
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_classes_of_a_folder_are_told_by_their_names(folder_run, pictures, tmp_path):
    """The only class of this folder would have the label 0 by itself."""
    (tmp_path / "red").symlink_to(pictures / "red")
    predictor = load_predictor(folder_run)
    examples = find_examples(predictor, f"folder:{tmp_path}")
    assert examples.labels.tolist() == [1] * 12
    found = evaluate(predictor, examples)
    p = predictor(sorted(map(str, (pictures / "red").iterdir())))
    assert found.values()["accuracy"] == (p.argmax(1) == 1).mean()
    assert "precision" in found.by_class(as_text=True)
    (tmp_path / "green").mkdir()
    with pytest.raises(ValueError, match="does not know: green; it knows blue, red"):
        find_examples(predictor, f"folder:{tmp_path}")


def test_a_part_and_arrays_are_taken_as_asked(digits_run, npz_run, tmp_path):
    predictor = load_predictor(digits_run)
    train = find_examples(predictor, part="train")
    assert train.what == "the train set of digits"
    digits = datasets.find("digits")
    seen = datasets.load_splits(digits, name="digits", train_size=100).train
    assert train.labels.tolist() == [label for _, label in seen]
    with pytest.raises(ValueError, match="digits has no validation set, only train"):
        find_examples(predictor, part="validation")
    x, t = np.zeros((3, 8, 8), np.uint8), np.array([1, 1, 9])
    np.savez(tmp_path / "data.npz", x=x, t=t)
    examples = find_examples(predictor, f"npz:{tmp_path / 'data.npz'}")
    assert examples.labels.tolist() == [1, 1, 9]
    assert examples.load(0).shape == (1, 8, 8)
    own = find_examples(load_predictor(npz_run))
    assert len(own.labels) == 200 and own.load(0).max() <= 1
    np.savez(tmp_path / "data.npz", x=x, t=t + 1)
    with pytest.raises(ValueError, match="has the label 10 at index 2"):
        find_examples(predictor, f"npz:{tmp_path / 'data.npz'}")


def test_other_classes_or_shapes_are_refused(digits_run, folder_run):
    with pytest.raises(ValueError, match=r"inputs of shape \(1, 28, 28\), but the"):
        find_examples(load_predictor(digits_run), "mnist5k")
    with pytest.raises(ValueError, match="not those of the network: 0, 1, 2"):
        find_examples(load_predictor(folder_run), "digits")


def test_a_network_for_arrays_is_evaluated_on_pictures(digits_run, tmp_path):
    for label in "70":
        (tmp_path / label).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / label / "black.png")
    examples = find_examples(load_predictor(digits_run), f"folder:{tmp_path}")
    assert examples.labels.tolist() == [0, 7]
    assert examples.load(1).shape == (1, 8, 8)


def test_data_that_have_changed_since_are_refused(digits_run):
    predictor = load_predictor(digits_run)
    predictor.record["data"]["n_held_out"] += 1
    for part in (None, "test"):
        with pytest.raises(ValueError, match="validated on 356 images, and there are"):
            find_examples(predictor, part=part)
    assert len(find_examples(predictor, "digits").labels) == 355


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_the_titles_of_few_errors_are_whole(digits_run, n):
    predictor = load_predictor(digits_run)
    found = evaluate(predictor, find_examples(predictor))
    order = [e["index"] for e in found.errors()[:n]]
    part = found.examples._replace(
        names=[found.examples.names[i] for i in order],
        labels=found.examples.labels[order],
        load=lambda i: found.examples.load(order[i]),
    )
    figure = plot_errors(found._replace(examples=part, scores=found.scores[order]))
    figure.draw_without_rendering()
    assert len(figure.axes) >= n
    for axes in figure.axes[:n]:
        assert axes.title.get_window_extent().y1 <= figure.bbox.y1
