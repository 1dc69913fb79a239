"""Photographs from whatever there is, and where their pixels go."""

import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torchvision
from PIL import Image, ImageDraw
from torchvision import transforms

from secondsight import InputError
from secondsight.encoders.families.builtin import preprocess as squash
from secondsight.inputs.blur import gaussian_blur
from secondsight.inputs.images import ImageInput, levels, measure, open_image
from secondsight.inputs.prepared import Prepared


def photo(size=(60, 40), mode="RGB") -> Image.Image:
    image = Image.new("RGB", size, "navy")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1]), fill="orange")
    return image.convert(mode)


def test_every_kind_of_input_gives_the_same_picture(tmp_path):
    photo().save(tmp_path / "a.png")
    array = np.asarray(photo())
    for raw in (tmp_path / "a.png", str(tmp_path / "a.png"), photo(), array, array / 255.0):
        assert np.array_equal(np.asarray(open_image(raw)), array)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "HSV"])
def test_other_modes_are_converted(mode):
    base = photo().convert("L").convert("RGB") if mode == "LA" else photo()
    opened = open_image(base.convert(mode))
    assert opened.mode == "RGB"
    assert opened.size == (60, 40)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    opened = np.asarray(open_image(tmp_path / "deep.png"))[..., 0].astype(int)
    assert np.abs(opened - ramp / 257).max() <= 1.5


def test_alpha_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(open_image(clear)).min() == 255


def test_a_rotation_noted_by_the_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (40, 60)


def test_of_an_animation_the_first_frame_is_taken_with_a_warning(tmp_path):
    photo().save(tmp_path / "move.gif", save_all=True, append_images=[Image.new("RGB", (60, 40), "red")])
    with pytest.warns(UserWarning, match="2 frames; the first"):
        opened = open_image(tmp_path / "move.gif")
    assert np.asarray(opened)[5, 50].tolist() == [0, 0, 128]


def bomb(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (15000, 15000)).save(folder / "bomb.png")
    return folder / "bomb.png"


def truncated(folder: Path) -> Path:
    photo().save(folder / "whole.jpg")
    (folder / "half.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:400])
    return folder / "half.jpg"


def text_file(folder: Path) -> Path:
    (folder / "text.jpg").write_text("this is no photograph")
    return folder / "text.jpg"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: f / "missing.jpg", "does not exist"),
        (lambda f: f, "is a folder"),
        (text_file, "not a photograph that can be read: use JPEG, PNG or WebP"),
        (truncated, "damaged"),
        (bomb, "too large to open safely"),
        (lambda _: Image.new("RGB", (1, 1)), "too small"),
        (lambda _: Image.new("F", (9, 9)), "floating-point"),
        (lambda _: np.zeros((5, 5, 7), np.uint8), r"shape \(5, 5, 7\)"),
        (lambda _: np.full((5, 5, 3), 2.0), "must lie in 0 … 1"),
        (lambda _: np.full((5, 5, 3), np.nan), "finite"),
        (lambda _: 5, "cannot use int"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, make, words):
    with pytest.raises(InputError, match=words):
        open_image(make(tmp_path))


def clip_like(size, **options):
    return open_clip.image_transform(size, is_train=False, **options)


@pytest.mark.parametrize(
    ("preprocess", "size", "frame"),
    [
        (clip_like(224), (640, 480), (80, 0, 560, 480)),
        (clip_like(224), (333, 500), (0, 83.5, 333, 416.5)),
        (clip_like(224), (50, 40), (5, 0, 45, 40)),
        (clip_like(224, resize_mode="squash"), (640, 480), (0, 0, 640, 480)),
        (clip_like(224, resize_mode="longest"), (640, 480), (0, -80, 640, 560)),
        (squash, (640, 427), (0, 0, 640, 427)),
        (transforms.Compose([transforms.CenterCrop(100), transforms.ToTensor()]), (300, 200), (100, 50, 200, 150)),
    ],
)
def test_any_preprocessing_is_measured(preprocess, size, frame):
    placement = measure(preprocess, size)
    assert placement.image_size == size
    assert np.abs(np.array(placement.frame) - frame).max() < max(0.6, 0.002 * max(size))


@pytest.mark.parametrize(
    "preprocess",
    [
        open_clip.image_transform(224, is_train=True),
        transforms.Compose([transforms.RandomHorizontalFlip(1.0), transforms.ToTensor()]),
        transforms.Compose([transforms.RandomRotation((90, 90), expand=True), transforms.ToTensor()]),
    ],
)
def test_a_preprocessing_without_one_frame_is_refused(preprocess):
    with pytest.raises(InputError, match="random|flips, rotates"):
        measure(preprocess, (320, 240))


def test_levels_are_black_and_white():
    low, high = levels(clip_like(32))
    mean, std = (torch.tensor(v) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    assert torch.allclose(low, -mean / std, atol=1e-6)
    assert torch.allclose(high, (1 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("size", [(100, 100), (37, 50), (8, 8)])
@pytest.mark.parametrize("deviation", [0.1, 3.0, 12.5])
def test_the_blur_is_torchvision_s(size, deviation):
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    kernel = 2 * (min(size) // 4) + 1
    expected = torchvision.transforms.functional.gaussian_blur(pixels, kernel_size=kernel, sigma=deviation)
    assert torch.allclose(gaussian_blur(pixels, deviation), expected, rtol=0, atol=1e-12)


def test_a_phones_hundred_megapixels_are_explained_smaller_with_a_note(tmp_path):
    left = Image.new("L", (12000, 9000), "black")
    left.paste("white", (6000, 0, 12000, 9000))
    for name in ("huge.jpg", "huge.png"):
        left.save(tmp_path / name)
        with pytest.warns(UserWarning, match="has 12000×9000 pixels; it is explained at 6000×4500, and boxes count in"):
            image = open_image(tmp_path / name)
        assert image.size == (6000, 4500)
        assert image.getpixel((100, 100)) == (0, 0, 0)
        assert min(image.getpixel((5900, 100))) > 250
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_an_address_is_no_photograph():
    with pytest.raises(InputError, match="'https://a.org/cat.jpg' is an address.*download it first"):
        open_image("https://a.org/cat.jpg")


@pytest.mark.parametrize("size", [(9, 12), (2, 3), (16, 16)])
def test_the_local_mean_of_a_pixel_is_that_of_the_ring_around_it(size):
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = min(size)
    inner, outer = side // 8, max(side // 4, side // 8 + 1)
    expected = torch.empty_like(pixels)
    for row in range(size[0]):
        for column in range(size[1]):
            ring = [
                pixels[0, :, r, c]
                for r in range(size[0])
                for c in range(size[1])
                if inner < max(abs(r - row), abs(c - column)) <= outer
            ]
            expected[0, :, row, column] = torch.stack(ring).mean(0)
    filled = ImageInput(None).reference(Prepared(pixels, None, None), "local-mean", 0)
    assert torch.allclose(filled, expected, rtol=0, atol=1e-12)


def test_the_local_mean_of_a_patch_says_nothing_of_what_is_in_it():
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 16:20, 16:20] = 1.0
    filled = ImageInput(None).reference(Prepared(pixels, None, None), "local-mean", 0)
    assert float(filled[:, :, 16:20, 16:20].abs().max()) == 0
    # Far from its borders a slope stays as it is.
    slope = torch.arange(32.0).expand(1, 3, 32, 32)
    filled = ImageInput(None).reference(Prepared(slope, None, None), "local-mean", 0)
    assert torch.allclose(filled[..., 8:24, 8:24], slope[..., 8:24, 8:24], atol=1e-5)
