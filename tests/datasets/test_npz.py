import numpy as np
import pytest

from chainer_mmix.datasets import get_npz

X = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
T = np.array([0, 1, 2, 2, 1, 0])


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return tmp_path / "own.npz"

    return save


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_bytes_become_floats(save, dtype):
    train, test = get_npz(save(x=X, t=T.astype(dtype), x_test=X[:2], t_test=[2, 2]))
    assert (len(train), len(test)) == (6, 2)
    for (image, label), right, t in zip(train, X, T, strict=True):
        assert image.dtype == np.float32 and label.dtype == np.int32
        np.testing.assert_allclose(image, right / 255, rtol=1e-6)
        assert label == t
    assert test[1][1] == 2


def test_grey_images_get_a_channel(save):
    train, test = get_npz(save(x=X[:, 0], t=T))
    assert train[0][0].shape == (1, 8, 8) and test is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_left_as_they_are(save, dtype):
    table = np.random.default_rng(0).normal(0, 100, (6, 5)).astype(dtype)
    train, _ = get_npz(save(x=table, t=T))
    row, _ = train[3]
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, table[3].astype(np.float32))
    whole = np.round(table)  # a table may hold whole numbers
    np.testing.assert_array_equal(get_npz(save(x=whole, t=T))[0][3][0], whole[3])


def test_images_of_two_scales_are_refused(save):
    x = X * np.float32(0.99)
    for train, test in ((x, x / 255), (x / 255, x)):
        with pytest.raises(ValueError, match=r"other scales, .*252.45: divide those"):
            get_npz(save(x=train, t=T, x_test=test, t_test=T))
    for same in (x, x / 255, x / 255 + 3 * np.random.RandomState(0).randn(*x.shape)):
        get_npz(save(x=x / 255 if same is not x else x, t=T, x_test=same, t_test=T))


def test_small_images_are_not_taken_for_channels_last(save):
    x = np.zeros((6, 3, 3, 3), np.uint8)
    x[0, 1, 0, 2] = 255
    assert get_npz(save(x=x, t=T))[0][0][0][1, 0, 2] == 1


@pytest.mark.parametrize(
    "arrays, text",
    [
        ({"x": X}, "no array 't', only x: save x and t"),
        ({"t": T}, "no array 'x', only t"),
        ({"images": X, "labels": T}, "no array 'x', only images, labels"),
        ({"x": X, "t": T, "x_test": X}, "no array 't_test'"),
        ({"x": X, "t": T, "t_test": T}, "no array 'x_test'"),
        ({"x": X, "t": T + 1}, r"labels from 1 to 3: .* as t - t\.min"),
        ({"x": X, "t": T - 1}, r"labels from -1 to 1: .* as t - t\.min"),
        ({"x": X, "t": 2 * T}, "up to 4 but none is 1: .* return_inverse"),
        ({"x": X, "t": 0 * T}, "one class only"),
        ({"x": X, "t": np.eye(3)[T]}, r"\(6, 3\), as one-hot .* t\.argmax"),
        ({"x": X, "t": T.astype(float)}, r"dtype float64: give one class number"),
        ({"x": X, "t": T[:, None]}, r"shape \(6, 1\) and dtype int64"),
        ({"x": X, "t": T[:5]}, r"labels of shape \(5,\) for 6 images"),
        ({"x": X.transpose(0, 2, 3, 1), "t": T}, r"channels last: .*\(0, 3, 1, 2\)"),
        ({"x": X.astype(np.int64), "t": T}, "x of .* has dtype int64: save images as"),
        ({"x": X.astype(np.float32), "t": T}, "whole numbers from 0 to 255 in float32"),
        ({"x": np.full((6, 3), np.nan), "t": T}, "not finite"),
        ({"x": X[:, :, :0], "t": T}, r"is empty, of shape \(6, 3, 0, 8\)"),
        ({"x": X.ravel(), "t": T}, r"shape \(1152,\): make it \(N, C, H, W\)"),
        ({"x": X, "t": T, "x_test": X, "t_test": T + 1}, "the label 3 at"),
        ({"x": np.full((6, 3), 1e39), "t": T}, "not finite in float32"),
        (
            {"x": X, "t": T, "x_test": X[:, :, :4], "t_test": T},
            r"shape \(3, 8, 8\) and test examples of shape \(3, 4, 8\)",
        ),
        ({"x": np.array([{}] * 6), "t": T}, "x of .* holds objects, not numbers"),
    ],
)
def test_bad_arrays_get_one_sentence(save, arrays, text):
    path = save(**arrays)
    with pytest.raises(ValueError, match=text) as e:
        get_npz(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("share", [0, 0.2, 0.9])
def test_a_cut_file_is_named(save, share):
    path = save(x=X, t=T)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="or was cut short: save x and t") as e:
        get_npz(path)
    assert str(path) in str(e.value)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "own.npz"
    for write in (np.savez, np.savez_compressed):
        write(path, x=X, t=T)
        content = bytearray(path.read_bytes())
        content[200:260] = bytes(60)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"own\.npz is damaged .* again$"):
            get_npz(path)


def test_a_single_array_and_a_missing_file_are_named(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ValueError, match=r"x\.npy is not what numpy\.savez writes"):
        get_npz(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.npz"):
        get_npz(tmp_path / "nowhere.npz")
