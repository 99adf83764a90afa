import itertools
import os
import random

import numpy as np
import pytest
from chainer.dataset import concat_examples

from chainer_mmix.datasets import (
    DATASETS,
    UnreadablePictureError,
    find,
    load,
    load_splits,
    short_name,
)


@pytest.fixture
def folder(tmp_path, draw_picture):
    for part, name, i in itertools.product(("train", "test"), "ab", range(5)):
        draw_picture(tmp_path / "folder" / part / name / f"{i}.png", (20, 30))
    return tmp_path / "folder"


@pytest.fixture
def file(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    t = np.arange(20) % 2
    np.savez(tmp_path / "own.npz", x=x, t=t)
    np.savez(tmp_path / "both.npz", x=x, t=t, x_test=x[:4], t_test=t[:4])
    return tmp_path / "own.npz"


def test_names_are_found_as_before():
    assert find("digits") == DATASETS["digits"]
    with pytest.raises(ValueError, match="dataset 'digit': did you mean digits"):
        find("digit")


def test_a_validation_set_of_a_named_set():
    plain = load_splits(find("digits"), name="digits")
    splits = load_splits(find("digits", validation_split=0.1, seed=3), name="digits")
    assert [len(part) for part in splits[:3]] == [1297, 145, 355]
    assert len(plain.train) == 1442 and plain.validation is None
    assert (plain.held_out_name, splits.held_out_name) == ("test", "validation")
    assert splits.class_names == tuple("0123456789")

    def rows(part):
        return {image.tobytes() for image, _ in part}

    assert rows(splits.train) | rows(splits.validation) == rows(plain.train)
    assert rows(splits.test) == rows(plain.test)


def test_a_folder(folder):
    dataset = find(f"folder:{folder}", size=16)
    assert (dataset.n_class, dataset.class_names) == (2, ("a", "b"))
    splits = load_splits(dataset, name="x")
    assert splits.class_names == ("a", "b") and splits.held_out_name == "test"
    images, labels = concat_examples(splits.test[:])
    assert images.shape == (10, 3, 16, 16) and labels.tolist() == [0] * 5 + [1] * 5
    assert find(f"folder:{folder}").load().train[0][0].shape == (3, 224, 224)


def test_a_folder_is_made_harder_without_reading_it(folder):
    dataset = find(f"folder:{folder}", size=16, validation_split=0.2)
    clean = dataset.load().train
    paths = list(clean.img_paths)
    for path in paths:
        os.rename(path, path + "x")
    options = {"name": "x", "train_size": 4, "label_noise": 0.5}
    plain, augmented = (
        load_splits(dataset, augment=augment, **options) for augment in (False, True)
    )
    for splits in (plain, augmented):
        with pytest.raises(UnreadablePictureError):
            splits.train[0]
    for path in paths:
        os.rename(path + "x", path)
    images = {image.tobytes(): label for image, label in clean}
    assert len(plain.train) == len(augmented.train) == 4
    # Half of the labels are other ones.
    assert sum(images[x.tobytes()] != t for x, t in plain.train) == 2
    random.seed(0)
    first, second, label = *(augmented.train[0][0] for _ in range(2)), plain.train[0][1]
    assert first.shape == (3, 16, 16) and augmented.train[0][1] == label
    assert not np.array_equal(first, second)
    random.seed(0)
    np.testing.assert_array_equal(augmented.train[0][0], first)
    # Nothing of this is done to what is looked at.
    for image, label in augmented.validation:
        again = next(t for x, t in plain.validation if np.array_equal(x, image))
        assert again == label


def test_arrays(file):
    dataset = find(f"npz:{file}", validation_split=0.2)
    assert dataset.n_class == 2
    splits = load_splits(dataset, name="x", augment=True)
    assert [len(splits.train), len(splits.validation), splits.test] == [16, 4, None]
    assert splits.train[0][0].shape == (1, 8, 8)
    splits = load_splits(find(f"npz:{file.with_name('both.npz')}"), name="x")
    assert [len(splits.train), splits.validation, len(splits.test)] == [20, None, 4]
    train, test = load(find(f"npz:{file.with_name('both.npz')}"), name="x")
    assert (len(train), len(test)) == (20, 4)


def test_a_table_is_not_augmented(tmp_path):
    np.savez(tmp_path / "table.npz", x=np.zeros((8, 3)), t=np.arange(8) % 2)
    dataset = find(f"npz:{tmp_path / 'table.npz'}", validation_split=0.5)
    assert load(dataset, name="x")[0][0][0].shape == (3,)
    with pytest.raises(ValueError, match="no augmentation of table"):
        load(dataset, name="table", augment=True)


def test_the_data_root_gets_to_the_loader(tmp_path):
    (tmp_path / "train_32x32.mat").write_bytes(b"")
    dataset = find("svhn", data_root=tmp_path, validation_split=0.1)
    with pytest.raises(ValueError, match=f"{tmp_path}/train_32x32.mat is not"):
        load(dataset, name="svhn")


@pytest.mark.parametrize(
    "name, short",
    [
        ("digits", "digits"),
        ("folder:data/pets/", "pets"),
        ("folder:a.b", "a.b"),
        ("folder:.", "here"),
        ("npz:data/own.npz", "own"),
    ],
)
def test_short_names(name, short, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert short_name(name) == short


@pytest.mark.parametrize("name", [n for n, d in DATASETS.items() if d.has_files])
def test_all_loaders_take_a_data_root(name, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    dataset = find(name, data_root=tmp_path)
    with pytest.raises(OSError, match="no network") as e:
        load(dataset, name=name)
    assert f"{name} needs {tmp_path}/{name}/" in str(e.value)


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("digits", {"size": 8}, r"size \(--size\) is not for digits: leave it out"),
        ("digits", {"skip_corrupt": True}, r"\(--skip-corrupt\) is not for digits"),
        ("digits", {"data_root": "."}, r"digits comes with a package: .*--data-root"),
        ("digits", {"validation_split": 2}, "between 0 and 1, not 2"),
        ("npz:FILE", {"data_root": "."}, r"data_root \(--data-root\) is not for npz:"),
        ("npz:FILE", {"size": 8}, r"size \(--size\) is not for npz:"),
        ("npz:FILE", {}, "own.npz has no x_test and t_test to evaluate on: give a val"),
        ("npz:nowhere", {}, "no file nowhere"),
        ("folder:nowhere", {}, r"no folder /.*nowhere"),
        ("folder:FOLDER", {"data_root": "."}, "is not for folder:"),
        ("zip:x", {}, r"unknown kind of dataset 'zip' .* folder:PATH and npz:FILE"),
        ("folder", {}, "unknown dataset 'folder'"),
    ],
)
def test_bad_wishes_get_one_sentence(folder, file, name, options, text):
    name = name.replace("FILE", str(file)).replace("FOLDER", str(folder))
    with pytest.raises((ValueError, OSError), match=text) as e:
        load(find(name, **options), name=name)
    assert "\n" not in str(e.value)
