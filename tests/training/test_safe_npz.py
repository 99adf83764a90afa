import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from chainer_mmix.training import SnapshotError, read_snapshot


def header(shape, descr="<f4"):
    file = io.BytesIO()
    npy.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def archive(path, content, name="x.npy", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, content)
    return path


def refused(path, message):
    """Reads a file that is refused, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError, match=message) as e:
            read_snapshot(path)
        assert "\n" not in str(e.value)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape", [(10**9,), (2**40, 2**40), (2**63,), (3,), (0,), (-4,), (2,)]
)
def test_a_shape_that_is_not_that_of_the_bytes(tmp_path, shape):
    path = archive(tmp_path / "file", header(shape) + b"1234" * (shape != (0,)))
    refused(path, "") if shape != (0,) else read_snapshot(path)


def test_a_size_that_cannot_be_true(tmp_path):
    path = archive(tmp_path / "file", header((10**9,)) + b"1234")
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("x.npy").file_size
    content = path.read_bytes()
    declared = (size + 4 * 10**9 - 4).to_bytes(4, "little")
    # In the central directory, after signature, versions, flags and compressed size.
    at = content.rindex(b"PK\x01\x02") + 24
    assert content[at : at + 4] == size.to_bytes(4, "little")
    path.write_bytes(content[:at] + declared + content[at + 4 :])
    refused(path, "more than can be in")


def test_what_is_compressed_well_is_read(tmp_path):
    zeros = np.zeros(1_000_000, np.float32)
    np.savez_compressed(tmp_path / "file.npz", x=zeros)
    np.testing.assert_array_equal(read_snapshot(tmp_path / "file.npz")["x"], zeros)


def test_a_compression_that_chainer_does_not_use(tmp_path):
    path = archive(tmp_path / "file", header(()), compression=zipfile.ZIP_BZIP2)
    refused(path, "compressed as no snapshot is")


@pytest.mark.parametrize("name", ["../x.npy", "/x.npy", "a/../../x.npy", r"..\x.npy"])
def test_a_name_that_leads_out_of_the_archive(tmp_path, name):
    refused(archive(tmp_path / "file", header((1,)) + b"1234", name), "leads out of it")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_for_two_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        for _ in range(2):
            file.writestr("x.npy", header((1,)) + b"1234")
    refused(tmp_path / "file", "one name")


@pytest.mark.parametrize("text", ["{'descr': (", "((((((((", "{1: 2}", "'''", "\x00"])
def test_a_header_that_is_no_dict(tmp_path, text):
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    refused(archive(tmp_path / "file", content), "not a snapshot")


def test_a_header_without_end(tmp_path):
    content = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b" " * 20_000
    refused(archive(tmp_path / "file", content), "a header of 4294967295 bytes")


def test_objects_of_another_number_than_their_shape(tmp_path):
    content = pickle.dumps(np.array([None, None], object), protocol=4)
    one, other = b"K\x02\x85", b"K\xc8\x85"  # the tuples (2,) and (200,)
    assert content.count(one) == 1
    path = archive(tmp_path / "file", header((2,), "|O") + content.replace(one, other))
    refused(path, "has 2 items")


def test_more_objects_than_a_snapshot_has(tmp_path):
    content = header((), "|O") + pickle.dumps(np.array("x" * 2_000_000, object))
    path = archive(tmp_path / "file", content, compression=zipfile.ZIP_DEFLATED)
    refused(path, "bytes of objects")


def test_what_numpy_1_has_pickled_is_read(tmp_path):
    """Up to 1.16, NumPy wrote arrays of objects by protocol 2, on Python 3 too."""
    values = np.array([["a", 1], [None, 2.5]], object, order="F")
    content = pickle.dumps(values, protocol=2)
    assert b"c_codecs\nencode\n" in content
    old = content.replace(b"numpy._core", b"numpy.core")
    path = archive(tmp_path / "file", header((2, 2), "|O") + old)
    np.testing.assert_array_equal(read_snapshot(path)["x"], values)


DTYPE = b"cnumpy\ndtype\n"
# Tuples of the tuple before, twice: of 2 ** 40 items, which nobody has time to look at.
ENDLESS = b"Nq\0" + b"h\0h\0\x86q\0" * 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # NumPy raised SystemError for such a state of a dtype.
        (DTYPE + b"(X\2\0\0\0O8tR(K\3X\1\0\0\0|NNNtb", "of a strange type"),
        # This sets the default arguments of what stands for a function of NumPy.
        (DTYPE + b"N(X\x0c\0\0\0__defaults__(Ntd\x86b", "the opcode DICT"),
        (DTYPE + b"(NNNNNtb", "a state of something that has none"),
        (ENDLESS + b"(h\0Nd", "the opcode DICT"),
        (ENDLESS + DTYPE + b"h\0\x85R", "has another type"),
        (b"c_codecs\nencode\n(X\1\0\0\0aX\5\0\0\0rot13tR", "another encoding"),
        (b"c_codecs\ndecode\n", "a reference to _codecs.decode"),
        (b"]q\0h\0a", "of a strange type"),
    ],
)
def test_a_pickle_that_no_array_has(tmp_path, content, message):
    pickled = b"\x80\4" + content + b"."
    refused(archive(tmp_path / "file", header((), "|O") + pickled), message)


def test_names_cannot_clear_a_terminal(tmp_path):
    path = archive(tmp_path / "file", header((3,)) + b"1234", "\x1b[2Jx\n.npy")
    refused(path, r"\\x1b\[2Jx\\n.npy has 4 bytes")
