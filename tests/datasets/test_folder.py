import os
import pickle
import shutil
import unicodedata
import warnings

import chainer
import numpy as np
import pytest
from chainer.dataset import concat_examples
from chainer.iterators import MultiprocessIterator
from PIL import Image

from chainer_mmix.datasets import (
    PictureDataset,
    UnreadablePictureError,
    centre_crop,
    get_folder,
)
from chainer_mmix.datasets.picture import to_array

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture
def make(tmp_path, draw_picture):
    """``make("train/cat", 3)`` draws pictures and returns the root."""
    root = tmp_path / "root"

    def make(folder, n=2, suffix="png"):
        for i in range(n):
            draw_picture(root / folder / f"{i}.{suffix}")
        return root

    return make


def names(dataset):
    """The class that each picture's folder says, and the one its label says."""
    return [
        (os.path.basename(os.path.dirname(path)), dataset.class_names[label])
        for path, label in zip(dataset.img_paths, dataset.labels, strict=True)
    ]


def test_parts_have_the_labels_of_one_list(make):
    for part in ("train", "val", "test"):
        for name in ("1", "2", "10", "b c"):
            root = make(f"{part}/{name}")
    splits = get_folder(root, size=8)
    for part, dataset in zip(("train", "val", "test"), splits[:3], strict=True):
        assert dataset.class_names == ("1", "10", "2", "b c")
        assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert all(f"/{part}/" in path for path in dataset.img_paths)
        assert all(folder == label for folder, label in names(dataset))
    assert splits.held_out is splits.validation
    assert splits.held_out_name == "validation"


@pytest.mark.parametrize("name", ["val", "validation", "test", "Val"])
def test_names_of_the_parts(make, name):
    for part in ("train", name):
        make(f"{part}/a")
        root = make(f"{part}/b")
    splits = get_folder(root)
    part = "test" if name == "test" else "validation"
    assert splits.held_out_name == part
    assert [x is not None for x in splits[:3]] == [True, part != "test", part == "test"]
    assert f"/{name}/" in splits.held_out.img_paths[0]


def test_examples_are_images_and_labels(make):
    make("train/a"), make("train/b"), make("val/a")
    root = make("val/b")
    train = get_folder(root, size=6).train
    images, labels = concat_examples(train[:])
    assert images.shape == (4, 3, 6, 6) and images.dtype == np.float32
    assert labels.tolist() == [0, 0, 1, 1] and labels.dtype == np.int32
    with Image.open(root / "train" / "b" / "1.png") as image:
        right = to_array(centre_crop(image, 6))
    np.testing.assert_array_equal(images[3], right)
    np.testing.assert_array_equal(train[-1][0], right)
    whole, label = train.whole()[3]
    assert (whole.mode, whole.size, label) == ("RGB", (8, 8), 1)


def test_examples_come_from_worker_processes(make):
    make("a", 4)
    train = get_folder(make("b", 4), size=8, validation_split=0.5).train
    iterator = MultiprocessIterator(
        train, 2, repeat=False, shuffle=False, n_processes=2
    )
    read = [example for batch in iterator for example in batch]
    iterator.finalize()
    for (image, label), (right, same) in zip(read, train, strict=True):
        np.testing.assert_array_equal(image, right)
        assert label == same


def test_hidden_folders_are_no_classes(make):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            root = make(f"{part}/{name}")
    make("train/.ipynb_checkpoints"), make("train/cat/.ipynb_checkpoints")
    make("train/__MACOSX/cat"), make("__MACOSX/train/cat"), make("val/@eaDir")
    (root / "train" / "cat" / "._0.png").write_bytes(b"\0\5\26\7")
    (root / "train" / "dog" / ".DS_Store").write_bytes(b"")
    train, validation, _ = get_folder(root)[:3]
    for dataset in (train, validation):
        assert dataset.class_names == ("cat", "dog")
        assert names(dataset) == [(name, name) for name in ("cat", "cat", "dog", "dog")]


def test_all_formats_of_pillow_count_and_others_are_named(make):
    for suffix in ("jpg", "JPEG", "png", "gif", "tif", "webp", "bmp", "ppm", "tga"):
        make("a", 2, suffix)
        root = make("b", 2, suffix)
    for name in ("notes.txt", "b/list.csv", "b/deep/c.eps", "a/noSuffix", "0.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match="as no pictures of a class") as record:
        train, validation, _ = get_folder(root, validation_split=0.5)[:3]
    assert len(train) == len(validation) == 18
    (text,) = (str(w.message) for w in record)
    assert text.endswith(": 0.png, a/noSuffix, b/deep/c.eps, b/list.csv, notes.txt")
    for i in range(100):
        (root / f"x{i:02}.txt").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"x04\.txt and 95 more$"):
        get_folder(root, validation_split=0.5)


def test_pictures_may_lie_deeper_and_behind_links(make, tmp_path):
    make("cat", 4)
    root = make("cat/indoor/red", 4)
    store = tmp_path / "store"
    shutil.copytree(root / "cat", store)
    os.symlink(store, root / "dog")
    os.symlink(store, root / "cat" / "more")
    os.symlink(root / "cat", root / "cat" / "round")
    train, validation, _ = get_folder(root, size=8, validation_split=0.25)[:3]
    for dataset, n in ((train, (12, 6)), (validation, (4, 2))):
        assert np.bincount(dataset.labels).tolist() == list(n)


def test_a_link_that_leads_nowhere_is_named(make):
    make("a")
    root = make("b")
    os.symlink(root / "nowhere", root / "a" / "9.png")
    with pytest.raises(OSError, match=r"a/9\.png \(No such file"):
        get_folder(root, validation_split=0.5)


def test_unicode_names_are_one(make):
    composed, decomposed = (unicodedata.normalize(f, "Käfer") for f in ("NFC", "NFD"))
    make(f"train/{composed}"), make(f"val/{decomposed}")
    for name in ("Zebra", "Kamel"):
        make(f"train/{name}")
        root = make(f"val/{name}")
    train, validation, _ = get_folder(root)[:3]
    assert train.class_names == validation.class_names == ("Kamel", composed, "Zebra")
    assert train.labels.tolist() == validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    make(f"train/{decomposed}")
    with pytest.raises(ValueError, match=r"twice.*merge them") as e:
        get_folder(root)
    assert r"K\xe4fer" in str(e.value) and r"Ka\u0308fer" in str(e.value)


def test_classes_that_differ_in_case_are_named(make):
    for name in ("Cat", "cat", "dog"):
        root = make(name)
    with pytest.warns(UserWarning, match="upper and lower case only: Cat, cat"):
        train, *_ = get_folder(root, validation_split=0.5)
    assert train.class_names == ("Cat", "cat", "dog")


def test_a_class_may_have_the_name_of_a_part(make):
    for name in ("car", "plane", "train", "test"):
        root = make(name)
    train, *_ = get_folder(root, validation_split=0.5)
    assert train.class_names == ("car", "plane", "test", "train")


@pytest.mark.parametrize("seed", range(20))
def test_a_split_is_stratified(make, seed):
    for name, n in (("a", 10), ("b", 5), ("c", 3)):
        root = make(name, n)
    train, validation, test = get_folder(root, validation_split=0.2, seed=seed)[:3]
    assert test is None
    assert np.bincount(train.labels).tolist() == [8, 4, 2]
    assert np.bincount(validation.labels).tolist() == [2, 1, 1]
    paths = {*train.img_paths, *validation.img_paths}
    assert len(paths) == 18
    again = get_folder(root, validation_split=0.2, seed=seed)
    assert again.train.img_paths == train.img_paths
    # What comes to one class leaves the others' split as it was.
    make("a", 20)
    grown = get_folder(root, validation_split=0.2, seed=seed).validation.img_paths
    assert grown[4:] == validation.img_paths[2:]


def test_the_seed_decides_the_split(make):
    make("a", 10)
    root = make("b", 10)
    splits = [get_folder(root, validation_split=0.5, seed=s).train for s in range(3)]
    assert len({tuple(train.img_paths) for train in splits}) == 3


def test_a_validation_set_can_be_split_off_beside_a_test_set(make):
    for part in ("train", "test"):
        make(f"{part}/a", 4)
        root = make(f"{part}/b", 4)
    train, validation, test = get_folder(root, validation_split=0.25)[:3]
    assert [len(x) for x in (train, validation, test)] == [6, 2, 8]
    assert all("/train/" in path for path in validation.img_paths)


def bad(make, kind):
    """Makes a folder that is bad in one way, and returns the arguments."""
    root = make("train/a", 4)
    make("train/b", 4), make("val/a"), make("val/b")
    if kind == "none":
        return root / "nowhere", {}
    if kind == "only val":
        make("val/new"), make("val/newer")
    elif kind == "only train":
        shutil.rmtree(root / "val" / "b")
    elif kind == "empty":
        (root / "train" / "c").mkdir(), (root / "val" / "c").mkdir()
    elif kind == "one class":
        shutil.rmtree(root / "train" / "b"), shutil.rmtree(root / "val" / "b")
    elif kind == "train is a class":
        shutil.rmtree(root / "val")
        make("car"), make("plane")
        return root, {"validation_split": 0.5}
    elif kind == "too high":
        return root.parent, {}
    elif kind == "flat":
        shutil.rmtree(root), make("", 4)
        return root, {"validation_split": 0.5}
    elif kind == "no train":
        shutil.rmtree(root / "train")
    elif kind == "no split":
        shutil.rmtree(root / "val")
    elif kind == "two vals":
        make("validation/a")
    elif kind == "split and val":
        return root, {"validation_split": 0.5}
    elif kind in ("share", "small share", "large share", "single"):
        shutil.rmtree(root / "val")
        if kind == "single":
            make("train/c", 1)
        shares = {"share": 1.5, "small share": 0.1, "large share": 0.9, "single": 0.5}
        return root, {"validation_split": shares[kind]}
    elif kind == "size":
        return root, {"size": 0}
    return root, {}


@pytest.mark.parametrize(
    "kind, text",
    [
        ("none", r"there is no folder .*nowhere"),
        ("only val", r"in val/ but not in train/ of .*: new, newer"),
        ("only train", r"in train/ but not in val/ of .*: b;"),
        ("empty", r"without a picture below .*train: c;"),
        ("one class", r"one class only, 'a'"),
        (
            "train is a class",
            r"car, plane beside train/ but no val/ .*: if the classes are in train/",
        ),
        ("too high", r"one folder only, with others in it: did you mean .*/root\?"),
        ("flat", r"no folders: give each class a folder"),
        ("no train", r"has val/ but no train/"),
        ("no split", r"--validation-split\), such as 0\.2"),
        ("two vals", r"both val/ and validation/"),
        ("split and val", r"is a validation set already: .* 0\.5 out"),
        ("share", r"between 0 and 1, not 1\.5"),
        (
            "small share",
            r"0\.1 leaves class 'a', which has 4 examples, none for validation: "
            r"choose one from 0\.125 to below 0\.875",
        ),
        ("large share", r"0\.9 leaves class 'a', which has 4 examples, none for train"),
        ("single", r"class 'c', which has 1 example, none for training: give it more"),
        ("size", "at least 1, not 0"),
    ],
)
def test_bad_folders_get_one_sentence(make, kind, text):
    root, options = bad(make, kind)
    with (
        pytest.raises((ValueError, OSError), match=text) as e,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        get_folder(root, **options)
    assert "\n" not in str(e.value)


def test_classes_of_one_picture_are_named(make):
    for part in ("train", "val"):
        make(f"{part}/a", 1)
        root = make(f"{part}/b")
    with pytest.warns(UserWarning, match=r"classes of one picture below .*train: a$"):
        get_folder(root)


def test_folders_beside_train_are_named(make):
    for part in ("train", "val"):
        make(f"{part}/a"), make(f"{part}/b")
    root = make("extra/a")
    with pytest.warns(UserWarning, match="left out beside .*train: extra"):
        get_folder(root)


def damage(root):
    """Damages three files, and returns how the errors name them."""
    jpeg = root / "a" / "0.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-20])
    (root / "a" / "1.jpg").write_text("<html>404</html>")
    (root / "b" / "0.jpg").write_bytes(b"")
    return {"a/0.jpg", "a/1.jpg", "b/0.jpg"}


def test_all_damaged_files_are_listed_before_training(make):
    make("a", 6, "jpg")
    root = make("b", 5, "jpg")
    damaged = damage(root)
    with pytest.raises(OSError, match=r"^3 of 11 pictures .*--skip-corrupt") as e:
        get_folder(root, validation_split=0.5)
    assert all(f"{path} (" in str(e.value) for path in damaged)
    with pytest.warns(UserWarning, match="3 of 11 pictures .* are left out") as record:
        train, validation, _ = get_folder(
            root, validation_split=0.5, skip_corrupt=True
        )[:3]
    assert all(path in str(record[0].message) for path in damaged)
    left = [os.path.relpath(p, root) for p in train.img_paths + validation.img_paths]
    assert len(left) == 8 and not damaged & set(left)
    train[:], validation[:]


def test_a_class_of_damaged_files_is_empty(make):
    make("a", 2, "jpg")
    root = make("b", 1, "jpg")
    damage(root)
    with pytest.warns(), pytest.raises(ValueError, match=r"a picture .*: a, b"):
        get_folder(root, validation_split=0.5, skip_corrupt=True)


def test_a_picture_that_turns_bad_stops_the_epoch_or_not(make):
    for part in ("train", "val"):
        make(f"{part}/a", 3)
        root = make(f"{part}/b", 3)
    stops, goes_on = (
        get_folder(root, size=8, skip_corrupt=skip).train for skip in (False, True)
    )
    right = stops[3][0]
    with open(stops.img_paths[5], "wb"):
        pass
    with pytest.raises(UnreadablePictureError, match=stops.img_paths[5]):
        stops[:]
    for index in (5, -1):
        with pytest.warns(UserWarning, match=f"{stops.img_paths[3]} takes its place"):
            image, label = goes_on[index]
        np.testing.assert_array_equal(image, right)
        assert label == 1
    for path in stops.img_paths[3:5]:
        os.remove(path)
    with pytest.raises(UnreadablePictureError, match=stops.img_paths[5]):
        goes_on[5]


def test_a_dataset_survives_pickling(make):
    make("a")
    train = get_folder(make("b"), size=8, validation_split=0.5).train
    other = pickle.loads(pickle.dumps(train))
    assert isinstance(other, PictureDataset) and other.class_names == ("a", "b")
    np.testing.assert_array_equal(other[1][0], train[1][0])


def test_a_relative_folder_is_remembered_wherever_one_is(make, monkeypatch, cache):
    make("a")
    root = make("b")
    monkeypatch.chdir(root.parent)
    train = get_folder(root.name, size=8, validation_split=0.5).train
    (memory,) = (cache / "chainer_mmix" / "checked").iterdir()
    before = memory.read_bytes(), memory.stat().st_mtime_ns
    monkeypatch.chdir(root)
    train[:]
    for same in ("../root", root):
        get_folder(same, validation_split=0.5)
    assert (memory.read_bytes(), memory.stat().st_mtime_ns) == before
    assert list(memory.parent.iterdir()) == [memory]


def test_labels_are_read_without_pictures(make):
    make("a", 4)
    train = get_folder(make("b", 4), validation_split=0.5).train
    for path in train.img_paths:
        os.remove(path)
    assert train.slice[:, "label"][:] == [0, 0, 1, 1]
    with chainer.using_config("train", False), pytest.raises(UnreadablePictureError):
        train[0]
