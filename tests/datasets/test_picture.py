import io
import math
import pickle
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from chainer_mmix.datasets import (
    RandomResizedCrop,
    UnreadablePictureError,
    centre_crop,
    read_picture,
)
from chainer_mmix.datasets.picture import to_array

COLOUR = (200, 60, 30)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def read(path):
    image = read_picture(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(rows, bits, kind, *chunks):
    """A PNG file of rows of bytes, each further chunk a name and its data."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks)]
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(values, white_is_zero=False, sample_format=1, n_bit=None, data=None):
    """An uncompressed grey TIFF; ``data`` if its values are packed."""
    height, width = values.shape
    data = data or values.astype(values.dtype.newbyteorder("<")).tobytes()
    n_bit = n_bit or 8 * values.itemsize
    tags = {
        **{256: width, 257: height, 258: n_bit, 259: 1},
        **{262: int(not white_is_zero), 273: 8, 277: 1, 278: height},
        **{279: len(data), 339: sample_format},
    }
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    "name, mode, options",
    [
        ("a.jpg", "RGB", {"quality": 100, "subsampling": 0}),
        ("a.JPG", "CMYK", {"quality": 100, "subsampling": 0}),
        ("a.jpeg", "YCbCr", {"quality": 100, "subsampling": 0}),
        ("a.png", "RGB", {}),
        ("a.gif", "RGB", {}),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}),
        ("a.tiff", "CMYK", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.bmp", "RGB", {}),
        ("a.ppm", "RGB", {}),
        ("a.tga", "RGB", {}),
    ],
)
def test_colours_of_all_formats(tmp_path, name, mode, options):
    Image.new("RGB", (16, 16), COLOUR).convert(mode).save(tmp_path / name, **options)
    array = read(tmp_path / name)
    assert array.shape == (16, 16, 3)
    assert np.abs(array.astype(int) - COLOUR).max() <= 2


def test_lab_is_converted(tmp_path):
    # CIE L*a*b* of sRGB red is (54.3, 80.8, 69.9) under D50; Pillow adds 128.
    lab = Image.merge("LAB", [Image.new("L", (4, 4), v) for v in (138, 209, 198)])
    lab.save(tmp_path / "a.tif")
    assert np.abs(read(tmp_path / "a.tif").astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("mode", ["L", "1", "P", "F"])
def test_grey_gets_three_equal_channels(tmp_path, mode):
    levels = [0, 255] if mode == "1" else [0, 2, 77, 255]
    grey = np.array([levels] * 3, np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.dstack([grey] * 3))


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([200, 10, 10, 0, 255, 0, 0, 0, 255])
    for name in ("a.png", "a.gif", "a.bmp"):
        image.save(tmp_path / name)
        right = [[[200, 10, 10], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
        np.testing.assert_array_equal(read(tmp_path / name), right)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in (COLOUR, "blue", "green")]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(read(tmp_path / name).astype(int) - COLOUR).max() <= 2


# The left column is transparent, the middle half so, and the right opaque.
ALPHA = np.array([[0, 128, 255]], np.uint8)


@pytest.mark.parametrize(
    "name, mode",
    [("a.png", "RGBA"), ("a.png", "LA"), ("a.webp", "RGBA"), ("a.tif", "LA")],
)
def test_what_is_transparent_shows_white(tmp_path, mode, name):
    colour = COLOUR if mode == "RGBA" else (77, 77, 77)
    rgba = np.dstack([np.full((1, 3, 3), colour, np.uint8), ALPHA])
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(rgba).convert(mode).save(tmp_path / name, **options)
    share = ALPHA[..., None] / 255
    right = share * colour + (1 - share) * 255
    assert np.abs(read(tmp_path / name) - right).max() <= 1


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
def test_a_palette_with_transparent_entries_shows_white(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([200, 10, 10, 0, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=transparency)
    half = [0, 0, 0] if transparency == 0 else [127, 127, 127]
    np.testing.assert_allclose(
        read(tmp_path / "a.png"), [[[255, 255, 255], half, [0, 0, 255]]], atol=1
    )


@pytest.mark.parametrize(
    "rows, bits, kind, key, right",
    [
        ([b"\xf0"], 1, 0, (1,), [[255] * 3] * 4 + [[0] * 3] * 4),
        ([b"\xf0"], 1, 0, (0,), [[255] * 3] * 8),
        ([b"\x00\x4d\xff"], 8, 0, (77,), [[0] * 3, [255] * 3, [255] * 3]),
        ([b"\x01\x02\x03\x03\x02\x01"], 8, 2, (1, 2, 3), [[255] * 3, [3, 2, 1]]),
        # 16 bits
        ([b"\x00\x00\x4d\x4d\x80\x80"], 16, 0, (0x4D4D,), [[0], [255], [128]]),
        ([b"\x00\x00\x4d\x4d\x80\x80"], 16, 0, (0x4D4C,), [[0], [77], [128]]),
        ([b"\x10\x10\x20\x20\x30\x30"], 16, 2, (0x1010, 0x2020, 0x3030), [[255]]),
        (
            [b"\x10\x10\x20\x20\x30\x30"],
            16,
            2,
            (0x1010, 0x2020, 0x3131),
            [[16, 32, 48]],
        ),
    ],
)
def test_a_transparent_colour_of_a_png_shows_white(
    tmp_path, rows, bits, kind, key, right
):
    transparency = b"tRNS", struct.pack(f">{len(key)}H", *key)
    (tmp_path / "a.png").write_bytes(png(rows, bits, kind, transparency))
    array = read(tmp_path / "a.png")
    np.testing.assert_array_equal(array, np.broadcast_to(right, array.shape[1:])[None])


RAMP = (np.arange(256) * 257).astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2", "big-endian.tif"])
def test_16_bits_keep_their_white(tmp_path, name):
    if name == "big-endian.tif":
        image = Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes())
    else:
        image = Image.fromarray(RAMP)
    image.save(tmp_path / name)
    right = np.arange(256).reshape(16, 16, 1)
    np.testing.assert_array_equal(
        read(tmp_path / name), np.broadcast_to(right, (16, 16, 3))
    )


def test_16_bits_a_channel(tmp_path):
    rgba = np.dstack([RAMP, 65535 - RAMP, RAMP // 2, np.full_like(RAMP, 65535)])
    for channels, kind in ((3, 2), (4, 6)):
        rows = [row.astype(">u2").tobytes() for row in rgba[..., :channels]]
        (tmp_path / "a.png").write_bytes(png(rows, 16, kind))
        assert np.abs(read(tmp_path / "a.png") - rgba[..., :3] / 257).max() < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_may_be_zero(tmp_path, dtype):
    values = np.array([[0, 1, 2, 255]], dtype) * (np.iinfo(dtype).max // 255)
    (tmp_path / "a.tif").write_bytes(tiff(values.astype(dtype), white_is_zero=True))
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0, :, 0], [255, 254, 253, 0])


def test_12_bits_keep_their_white(tmp_path):
    values = np.array([[0, 2048, 4095, 16]], np.uint16)
    packed = b"".join(
        int(a << 12 | b).to_bytes(3, "big") for a, b in values.reshape(2, 2).tolist()
    )
    (tmp_path / "a.tif").write_bytes(tiff(values, n_bit=12, data=packed))
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0, :, 0], [0, 128, 255, 1])


def test_black_floats_are_black(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.zeros((2, 2), np.float32), False, 3))
    assert read(tmp_path / "a.tif").max() == 0


@pytest.mark.parametrize(
    "values, sample_format",
    [
        (np.array([[0, 300, 70000]], np.int32), 2),
        (np.array([[-5, 5, 300]], np.int16), 2),
        (np.array([[0, 0.5, 1]], np.float32), 3),
        (np.array([[0, 100, 1000]], np.float32), 3),
        (np.array([[-1, 100, 200]], np.float32), 3),
        (np.array([[0, np.nan, 200]], np.float32), 3),
    ],
)
def test_numbers_without_a_white_are_refused(tmp_path, values, sample_format):
    (tmp_path / "a.tif").write_bytes(tiff(values, sample_format=sample_format))
    with pytest.raises(UnreadablePictureError, match="do not say what is white"):
        read_picture(tmp_path / "a.tif")


TURNED = {  # how a picture lies in the file, by its EXIF tag
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("tag", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_pictures_are_turned_as_exif_says(tmp_path, pixels, name, tag):
    pixels = np.kron(pixels, np.ones((8, 8, 1), np.uint8))  # for JPEG's blocks
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {
        "a.webp": {"lossless": True},
        "a.jpg": {"quality": 100, "subsampling": 0},
    }
    Image.fromarray(np.ascontiguousarray(TURNED[tag](pixels))).save(
        tmp_path / name, exif=exif, **options.get(name, {})
    )
    array = read(tmp_path / name)
    assert array.shape == pixels.shape
    assert np.abs(array.astype(int) - pixels).max() <= (4 if name == "a.jpg" else 0)
    other = ImageOps.exif_transpose(Image.open(tmp_path / name))
    np.testing.assert_array_equal(array, other)


def test_a_16_bit_picture_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(RAMP[:5]).copy()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[..., 0], RAMP[:5] // 257)


def test_damaged_exif_does_no_harm(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\0\0damaged")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize(
    "suffix",
    ["jpg", "png", "gif", "tif", "bmp", "webp", "ppm"],
)
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_cut_file_is_named(tmp_path, suffix, share):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadablePictureError) as e:
        read_picture(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)
    again = pickle.loads(pickle.dumps(e.value))  # as from a worker
    assert (str(again), again.path) == (str(e.value), str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"<html>404</html>",
        b"\0\5\26\7\0\2\0\0Mac OS X",
        # For this, Pillow would call another program.
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
    ],
)
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadablePictureError, match="of no known format"):
        read_picture(tmp_path / "a.jpg")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadablePictureError, match=r"a\.jpg .*No such file"):
        read_picture(tmp_path / "a.jpg")


def test_a_damaged_png_is_found(tmp_path, pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.kron(pixels, np.ones((9, 9, 1), np.uint8))).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 0x40
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadablePictureError):
        read_picture(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("most", [99, 40])
def test_a_decompression_bomb_is_named(tmp_path, monkeypatch, most):
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(UnreadablePictureError, match=rf"a\.png .*{most}"):
        read_picture(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read(tmp_path / "a.png").shape == (10, 10, 3)


def test_arrays_are_chainers(pixels):
    array = to_array(Image.fromarray(pixels))
    assert array.dtype == np.float32 and array.flags.c_contiguous
    np.testing.assert_allclose(array, pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (100, 300), (256, 256)])
def test_centre_crop_is_imagenets(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    crop = np.asarray(centre_crop(image, 224)).astype(int)
    # As torchvision does it: Resize(256), CenterCrop(224).
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    right = np.asarray(whole.crop((left, top, left + 224, top + 224)))
    assert crop.shape == right.shape
    assert np.abs(crop - right).max() <= 1


def test_a_picture_of_the_size_is_left_alone(pixels):
    image = Image.fromarray(pixels[:5])
    np.testing.assert_array_equal(np.asarray(centre_crop(image, 5)), pixels[:5])


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (3, 4000), (1, 60000)])
def test_extreme_shapes(size):
    image = Image.new("RGB", size, COLOUR)
    rng = random.Random(0)
    for crop in (centre_crop(image, 8), RandomResizedCrop(8).crop(image, rng)):
        assert crop.size == (8, 8)
        np.testing.assert_array_equal(np.asarray(crop), np.full((8, 8, 3), COLOUR))


def test_a_random_crop_is_that_part_of_the_picture():
    # Each pixel tells where it was.
    y, x = np.mgrid[:200, :250].astype(np.uint8)
    image = Image.fromarray(np.dstack([y, x, np.zeros_like(x)]))
    crops = {}
    for flip in (False, True):
        rng = random.Random(4)
        crop = RandomResizedCrop(20, (0.2, 0.5), flip=flip).crop(image, rng)
        crops[flip] = np.asarray(crop).astype(float)
    np.testing.assert_array_equal(crops[True], crops[False][:, ::-1])
    rows, columns = crops[False][:, :, 0], crops[False][:, :, 1]
    for steps in (np.diff(rows, axis=0), np.diff(columns, axis=1)):
        assert steps.min() > 0 and steps.max() - steps.min() <= 2
    assert np.ptp(rows, axis=1).max() <= 1 and np.ptp(columns, axis=0).max() <= 1


class Recorder:
    """In the place of a picture: remembers which parts were asked for."""

    def __init__(self, *size):
        self.size = size
        self.boxes = []

    def resize(self, size, resample, box):
        self.boxes.append(box)
        return Image.new("RGB", size)


def test_random_crops_keep_to_scale_and_ratio():
    image, rng = Recorder(1000, 800), random.Random(0)
    for _ in range(4000):
        RandomResizedCrop(8, scale=(0.1, 0.4)).crop(image, rng)
    left, top, right, bottom = np.array(image.boxes).T
    assert min(left) >= 0 and min(top) >= 0
    assert max(right) <= 1000 and max(bottom) <= 800
    width, height = right - left, bottom - top
    areas, ratios = width * height / 800000, np.log(width / height)
    # The areas are uniform, and so are the logarithms of the ratios.
    for values, low, high in (
        (areas, 0.1, 0.4),
        (ratios, np.log(3 / 4), np.log(4 / 3)),
    ):
        assert abs(min(values) - low) < 0.005 and abs(max(values) - high) < 0.005
        spread = (high - low) / np.sqrt(12)
        assert abs(np.mean(values) - (low + high) / 2) < 4 * spread / np.sqrt(4000)
        assert abs(np.std(values) / spread - 1) < 0.05
    # All places are as likely.
    for share in (left / (1000 - width), top / (800 - height)):
        assert abs(np.mean(share) - 0.5) < 0.02 and max(share) > 0.99


def test_half_of_the_random_crops_are_mirrored():
    image = Image.fromarray(np.array([[[0] * 3, [255] * 3]] * 2, np.uint8))
    rng = random.Random(0)
    crops = [
        np.asarray(RandomResizedCrop(2, scale=(1, 1), ratio=(1, 1)).crop(image, rng))
        for _ in range(400)
    ]
    assert 160 < sum(crop[0, 0, 0] == 255 for crop in crops) < 240


def test_random_crops_follow_their_generator(pixels):
    image = Image.fromarray(np.kron(pixels, np.ones((9, 9, 1), np.uint8)))
    transform = RandomResizedCrop(16)

    def crops(seed):
        rng = random.Random(seed)
        return [np.asarray(transform.crop(image, rng)).tobytes() for _ in range(3)]

    assert crops(0) == crops(0) != crops(1)
    random.seed(0)
    array, label = transform((image, np.int32(3)))
    assert label == 3 and array.shape == (3, 16, 16) and array.dtype == np.float32
    right = to_array(transform.crop(image, random.Random(0)))
    np.testing.assert_array_equal(array, right)


def test_large_jpegs_are_decoded_smaller_where_nothing_is_enlarged(tmp_path):
    y, x = np.mgrid[:801, :1200] / np.array([801, 1200]).reshape(2, 1, 1)
    values = 255 * np.stack([x, y, (1 + np.sin(9 * x + 5 * y)) / 2], axis=2)
    image = Image.fromarray(np.uint8(np.rint(values)))
    path = tmp_path / "large.jpg"
    image.save(path, quality=95)
    for shortest, size in (
        (None, (1200, 801)),
        (401, (1200, 801)),
        (400, (600, 401)),
        (200, (300, 201)),
        (100, (150, 101)),
        (1, (150, 101)),
        (2000, (1200, 801)),
    ):
        small = read_picture(path, shortest)
        assert small.size == size
        by_area = np.asarray(image.resize(size, Image.Resampling.BOX), int)
        assert np.abs(np.asarray(small) - by_area).max() <= 12
    # Lying as the camera wrote it, in the size that a person sees.
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert read_picture(path, 200).size == (201, 300)
    image.save(tmp_path / "large.png")
    assert read_picture(tmp_path / "large.png", 200).size == (1200, 801)


def test_no_crop_is_enlarged_from_a_picture_decoded_smaller():
    crop = RandomResizedCrop(24)
    rng = random.Random(0)
    for width, height in ((1, 1), (1, 3), (5, 2)):
        scale = crop.shortest / min(width, height)
        width, height = math.ceil(width * scale), math.ceil(height * scale)
        boxes = [crop._draw_box(width, height, rng) for _ in range(500)]
        sides = [min(b[2] - b[0], b[3] - b[1]) for b in boxes]
        assert min(sides) >= 23.5  # rounded
