import json
import shutil
import warnings

import chainer
import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import recall_score

from chainer_mmix import datasets, models, training
from chainer_mmix.inference import load_predictor
from chainer_mmix.inference.evaluation import evaluate
from chainer_mmix.inference.examples import Examples
from chainer_mmix.runs.files import RunError
from chainer_mmix.training.extensions import Evaluator

from .conftest import train_run


class Outputs(chainer.LinkHook):
    """Keeps what a link returns."""

    def __init__(self, link):
        self.link, self.outputs = link, []

    def forward_postprocess(self, args):
        if args.link is self.link:
            self.outputs.append(args.out.array.copy())


def validated(snapshot, n_class, examples, batchsize=16):
    """The logits that the Evaluator of the training computes, and its loss."""
    classifier = L.Classifier(models.CNN(n_class))
    chainer.serializers.load_npz(snapshot, classifier, "updater/model:main/")
    iterator = SerialIterator(examples, batchsize, repeat=False, shuffle=False)
    convert = training.convert_examples
    with Outputs(classifier.predictor) as hook:
        found = Evaluator(iterator, classifier, convert)()
    return np.concatenate(hook.outputs), found


def newest(run):
    return training.find_snapshot(run)


def test_pictures_get_the_logits_of_the_validation_to_the_bit(folder_run):
    arguments = json.loads((folder_run / "run.json").read_text())["arguments"]
    found = datasets.find(
        arguments["dataset"], size=16, validation_split=0.4, seed=arguments["seed"]
    )
    held_out = datasets.load_splits(found, name="pictures").held_out
    expected, evaluated = validated(newest(folder_run), 2, held_out, 4)
    last = json.loads((folder_run / "log").read_text())[-1]
    assert evaluated["main/loss"] == last["validation/main/loss"]

    predictor = load_predictor(folder_run, "final")
    assert predictor.class_names == ("blue", "red")
    assert predictor.batchsize == 4
    scores = predictor.scores(held_out.img_paths)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_allclose(
        predictor(held_out.img_paths), softmax(expected.astype(np.float64), 1), 1e-12
    )
    first = held_out.img_paths[0]
    np.testing.assert_allclose(predictor(first), predictor([first]))


@pytest.mark.parametrize("kind", ["channel", "image"])
def test_a_network_standardises_as_it_did_in_the_run(kind, tmp_path):
    options = ["--train-size", 100, "--epoch", 1, "--standardise", kind]
    run = train_run(tmp_path / "run", *options)
    x, t = map(np.stack, zip(*datasets.get_digits()[1], strict=True))
    scores = load_predictor(run, "final").scores(list(x)).astype(np.float64)
    loss = -log_softmax(scores, axis=1)[np.arange(len(t)), t].mean()
    [entry] = json.loads((run / "log").read_text())
    assert entry["validation/main/loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("which", ["best", "final"])
def test_arrays_get_those_of_the_snapshot_that_is_asked_for(digits_run, which):
    log = json.loads((digits_run / "log").read_text())
    losses = [entry["validation/main/loss"] for entry in log]
    _, test = datasets.get_digits()
    predictor = load_predictor(digits_run, which)
    epoch = 1 if which == "best" else 2
    assert predictor.snapshot.name.endswith(str(log[epoch]["iteration"]))
    expected, evaluated = validated(predictor.snapshot, 10, test)
    assert evaluated["main/loss"] == losses[epoch]
    x = np.stack([image for image, _ in test])
    np.testing.assert_array_equal(predictor.scores(list(x)), expected)
    np.testing.assert_array_equal(predictor(x).argmax(1), expected.argmax(1))
    assert all(param.grad is None for param in predictor.network.params())


def test_bytes_of_an_array_or_a_grey_picture_are_what_the_network_saw(
    npz_run, tmp_path
):
    path = json.loads((npz_run / "run.json").read_text())["arguments"]["dataset"]
    with np.load(path.removeprefix("npz:")) as file:
        x = file["x_test"][:5]
    predictor = load_predictor(npz_run)
    expected = predictor.scores(list(x[:, None] / np.float32(255)))
    np.testing.assert_array_equal(predictor(x), softmax(expected.astype("d"), 1))
    np.testing.assert_array_equal(predictor(list(x)), predictor(x))
    with pytest.raises(ValueError, match=r"array 1 has .* \(1, 9, 9\), but"):
        predictor([x[0], np.zeros((1, 9, 9), np.float32)])
    with pytest.raises(ValueError, match=r"up to .*divide them by 255, or give bytes"):
        predictor(x[:, None] * np.float32(0.99))
    example = x[0], np.int32(0)
    for wrong in (chainer.Variable(x), [example], x.tolist(), None, 5):
        with pytest.raises(TypeError, match=r"is no input: give a picture.*or a NumPy"):
            predictor(wrong)
        with pytest.raises(TypeError, match=r"is no input: give a picture.*or a NumPy"):
            predictor.scores(wrong)
    assert predictor([]).shape == predictor.scores(()).shape == (0, 10)
    for i, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    names = [tmp_path / f"{i}.png" for i in range(5)]
    np.testing.assert_array_equal(predictor.scores(names), expected)
    inverted = load_predictor(npz_run, invert=True)
    for i, image in enumerate(x):
        Image.fromarray(255 - image).save(tmp_path / f"{i}.png")
    np.testing.assert_array_equal(inverted.scores(names), expected)


def test_a_picture_of_another_shape_is_cropped_amid_and_resized(digits_run, tmp_path):
    wide = np.zeros((64, 200), np.uint8)
    blocks = np.kron(np.arange(64).reshape(8, 8) * 3 + 30, np.ones((8, 8)))
    # Stripes, of which an antialiasing filter leaves the mean.
    wide[:, 68:132] = blocks + 30 * (-1) ** np.arange(64)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    found = load_predictor(digits_run).preprocess.picture(tmp_path / "wide.png")
    assert found.shape == (1, 8, 8) and found.dtype == np.float32
    middle = (np.arange(64).reshape(8, 8)[1:-1, 1:-1] * 3 + 30) / 255
    np.testing.assert_allclose(found[0, 1:-1, 1:-1], middle, atol=0.03)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_pictures_in_memory_are_as_those_in_files(folder_run, tmp_path, mode):
    rng = np.random.RandomState(0)
    if mode == "I;16":
        image = Image.fromarray(rng.randint(0, 65536, (30, 40)).astype(np.uint16))
    else:
        array = rng.randint(0, 256, (30, 40, 3)).astype(np.uint8)
        image = Image.fromarray(array).convert(mode)
    assert image.mode == mode
    image.save(path := tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    predictor = load_predictor(folder_run)
    np.testing.assert_array_equal(predictor.scores([image]), predictor.scores([path]))
    np.testing.assert_array_equal(predictor.scores(path), predictor.scores([path]))
    assert image.mode == mode


def test_half_precision_is_that_of_the_run(tmp_path):

    x = np.random.RandomState(0).rand(20, 1, 8, 8).astype(np.float32)
    t = np.arange(20) % 2
    np.savez(tmp_path / "data.npz", x=x, t=t, x_test=x, t_test=t)
    data = f"npz:{tmp_path / 'data.npz'}"
    options = ["--dataset", data, "--dtype", "mixed16", "--epoch", 1]
    run = train_run(tmp_path / "run", *options, "--batchsize", 20)
    predictor = load_predictor(run)
    assert predictor.network.fc.W.dtype == np.float16
    scores = predictor.scores(list(x))
    assert scores.dtype == np.float16
    loss = -np.log(softmax(scores.astype(np.float64), 1))[np.arange(20), t].mean()
    last = json.loads((run / "log").read_text())[-1]
    assert last["validation/main/loss"] == pytest.approx(loss, abs=1e-3)


def test_a_network_of_ones_own(tmp_path):
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__(fc=L.Linear(4, 3))

        def forward(self, x):
            return self.fc(x)

    net = Net()
    optimizer = chainer.optimizers.Adam().setup(L.Classifier(net))
    data = [(np.full(4, i, np.float32), np.int32(i % 3)) for i in range(6)]
    device = chainer.get_device("@numpy")
    trainer = training.build_trainer(
        *(optimizer, data, data), epoch=1, batchsize=2, out=tmp_path, device=device,
        quiet=True,
    )  # fmt: skip
    record = training.RunRecord(tmp_path, {}, "python mine.py", device, 0)
    record.start()
    training.run(trainer, record)
    with pytest.raises(RunError, match="names no model: give one like that"):
        load_predictor(tmp_path, "final")
    for wrong, error in (
        (Net, "not the class Net: call it"),
        (L.Classifier(Net()), "give its predictor"),
    ):
        with pytest.raises(TypeError, match=error):
            load_predictor(tmp_path, "final", network=wrong)
    predictor = load_predictor(tmp_path, "final", network=Net())
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(predictor.scores(list(x)), net(x).array)
    assert predictor.class_names == ("0", "1", "2")


def test_bad_runs_are_told_with_the_remedy(digits_run, tmp_path):
    run = tmp_path / "run"
    for folder, error in [
        (tmp_path / "none", "none does not exist: name the output folder of a run"),
        (digits_run / "log", "is a file: name the output folder"),
        (tmp_path, "has no run.json"),
    ]:
        with pytest.raises(RunError, match=error):
            load_predictor(folder)
    with pytest.raises(ValueError, match="which must be 'best' or 'final', not 'last'"):
        load_predictor(digits_run, "last")
    shutil.copytree(digits_run, run)
    whole = (run / "run.json").read_text()
    (run / "run.json").write_text(whole[:200])
    with pytest.raises(RunError, match=r"not valid JSON.*: repair it, or train again$"):
        load_predictor(run)
    (run / "run.json").write_text(whole)
    for best in run.glob("best_*"):
        best.unlink()
    with pytest.raises(RunError, match="take the newest with which='final'"):
        load_predictor(run)
    for snapshot in run.glob("snapshot_*"):
        snapshot.write_bytes(snapshot.read_bytes()[:1000])
    with pytest.raises(RunError, match="none of the snapshots in"):
        load_predictor(run, "final")
    for snapshot in run.glob("snapshot_*"):
        snapshot.unlink()
    for which in ("best", "final"):
        with pytest.raises(RunError, match="no snapshot yet: let the run finish"):
            load_predictor(run, which)


def test_weights_of_another_network_are_refused(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    record = json.loads((run / "run.json").read_text())
    record["arguments"]["model"] = "resnet18"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(training.SnapshotError, match="do not fit ResNet18"):
        load_predictor(run)
    record["arguments"]["model"] = "vit"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="unknown model 'vit'"):
        load_predictor(run)


def test_records_that_programs_of_ones_own_may_write(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    record = json.loads((run / "run.json").read_text())
    x = np.zeros((2, 1, 8, 8), np.uint8)
    expected = load_predictor(run)(x)

    def write(part, **values):
        changed = {**record, part: {**record[part], **values}}
        (run / "run.json").write_text(json.dumps(changed))

    for names in (["0", "1"], [str(i) for i in range(11)]):
        write("data", class_names=names)
        error = rf"CNN returns \(10,\) numbers .* each of {len(names)} classes"
        with pytest.raises(RunError, match=error):
            load_predictor(run)(x)
    write("arguments", dtype="<class 'numpy.float32'>")
    with pytest.raises(ValueError, match=r"no dtype \"<class .*: name one of float32"):
        load_predictor(run)
    np.testing.assert_array_equal(load_predictor(run, dtype="float32")(x), expected)
    for batchsize in ("32", -1, None, [16]):
        write("arguments", batchsize=batchsize)
        np.testing.assert_array_equal(load_predictor(run)(x), expected)


def test_classes_of_one_name_are_told_by_their_numbers(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    record = json.loads((run / "run.json").read_text())
    names = ["crane", *"bcdefgh", "crane", "j"]
    record["data"]["class_names"] = names
    (run / "run.json").write_text(json.dumps(record))
    predictor = load_predictor(run)
    names[0], names[8] = "crane (0)", "crane (8)"
    assert predictor.class_names == tuple(names)
    _, test = datasets.get_digits()
    x = np.stack([image for image, _ in test])
    labels = np.array([label for _, label in test])
    examples = Examples("test", range(len(x)), labels, x.__getitem__)
    report = evaluate(predictor, examples).by_class()
    recall = recall_score(labels, predictor(x).argmax(1), average=None)
    for name, value in zip(names, recall, strict=True):
        assert report[name]["recall"] == value


def test_inputs_that_the_network_does_not_take_are_refused(digits_run, npz_run):
    predictor = load_predictor(digits_run)
    for x, error in [
        (np.zeros((2, 3, 8, 8), np.float32), r"shape \(3, 8, 8\), but the network"),
        (np.full((2, 1, 8, 8), 200.0), "divide them by the value that is white"),
        (np.zeros((2, 8, 8, 1), np.float32), "channels last"),
        (np.full((2, 8, 8), np.nan), "not finite"),
        (np.zeros((0, 8, 8)), "is empty"),
    ]:
        with pytest.raises(ValueError, match=error):
            predictor(x)
    assert predictor([]).shape == (0, 10)


def test_images_scaled_otherwise_are_warned_of(digits_run):
    predictor = load_predictor(digits_run)
    x = np.stack([image for image, _ in datasets.get_digits()[1]])
    for scaled in (2 * x - 1, (x - 0.3) / 0.4):
        with pytest.warns(UserWarning, match="far outside of 0 to 1, .* scale"):
            predictor(scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor(x + np.float32(0.1))


def test_a_network_of_standardised_arrays_takes_no_pictures(npz_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(npz_run, run)
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["input_range"] == [0, 1]
    record["data"]["input_range"] = [-2.1, 2.6]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"trained on arrays with values from -2.1"):
        load_predictor(run)("a.png")
    del record["data"]["input_shape"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="does not tell the shape of its images"):
        load_predictor(run)("a.png")
