"""Images are found as lists name them, and read in the frame of their annotations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxscore.demo.image_files import ImageFolder, read_image, read_label_map

SHADES = np.array([[0, 100, 255], [30, 60, 90]], np.uint8)


def folder(path: Path, *names: str) -> ImageFolder:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"")
    return ImageFolder(path)


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["a.png"], "a.png", "a.png"),
        (["a.png"], "a", "a.png"),
        (["a.b.png"], "a.b", "a.b.png"),
        (["s/a.png"], "a.png", "s/a.png"),
        (["s/a.png", "t/a.png"], "t/a", "t/a.png"),
        (["s/a.png", "a.png"], "a.png", "a.png"),
        (["s/a.png", "a.png"], r"s\a.png", "s/a.png"),
        (["s/a.png"], r"C:\data\images\s\a.png", "s/a.png"),
        (["a.png"], "/somewhere/images/a.png", "a.png"),
        (["a.png"], "./images/a.png", "a.png"),
        (["IMG_1.JPG"], "img_1.jpg", "IMG_1.JPG"),
        (["a.PNG", "A.PNG"], "A.PNG", "A.PNG"),
        (["a\u0308.png"], "ä.png", "a\u0308.png"),
        (["a.png", "a.txt", "._a.png"], "a", "a.png"),
        (["train2017/a.png", "val2017/a.png"], "a.png", "train2017/a.png"),
        (["a b.png"], "a b.png", "a b.png"),
    ],
)
def test_found(tmp_path: Path, files: list[str], name: str, found: str) -> None:
    assert folder(tmp_path, *files).find(name, "train") == tmp_path / found


@pytest.mark.parametrize(
    ("files", "name", "told"),
    [
        (["a.png"], "b.png", "no such image"),
        (["a.png"], "a.jpg", "no such image"),
        (["s/a.png"], "t/a.png", "no such image"),
        (["a.png", "a.jpg"], "a", "several: a.jpg, a.png"),
        (["s/a.png", "t/a.png"], "a.png", "several"),
        ([], "a.png", "no such image"),
        (["a.png"], "..", "no such image"),
    ],
)
def test_not_found(tmp_path: Path, files: list[str], name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        folder(tmp_path, *files).find(name, "train")


def test_sub_folders_may_be_links(tmp_path: Path) -> None:
    folder(tmp_path / "elsewhere", "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder(tmp_path / "images").find("a", "train").name == "a.png"


def saved(path: Path, image: Image.Image, name: str = "a.png", orientation: int = 1) -> Path:
    options: dict[str, Any] = {}
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    image.save(path / name, **options)
    return path / name


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize(
    ("orientation", "size", "shown"),
    [
        (1, (2, 3), (2, 3)),
        (6, (3, 2), (3, 2)),
        (6, None, (3, 2)),
        (6, (2, 3), (2, 3)),  # the stored frame was annotated
        (3, (2, 3), (2, 3)),
    ],
)
def test_the_frame_is_that_of_the_annotations(
    tmp_path: Path, name: str, orientation: int, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    file = saved(tmp_path, Image.fromarray(SHADES), name, orientation)
    assert np.array(read_image(file, size)).shape[:2] == shown


def test_an_image_is_turned_as_its_orientation_says(tmp_path: Path) -> None:
    upside_down = saved(tmp_path, Image.fromarray(SHADES), orientation=3)
    assert (np.array(read_image(upside_down, (2, 3)))[..., 0] == SHADES[::-1, ::-1]).all()
    stored = saved(tmp_path, Image.fromarray(SHADES), orientation=6)
    assert (np.array(read_image(stored, (2, 3)))[..., 0] == SHADES).all()


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.fromarray(SHADES))
    with pytest.raises(ValueError, match=r"a\.png is 3x2 pixels .* are for 9x7"):
        read_image(file, (7, 9))


def palette() -> Image.Image:
    image = Image.fromarray(SHADES).convert("P")
    image.putpalette([value for shade in range(256) for value in (shade, shade, shade)])
    image.putdata(SHADES.ravel().tolist())
    return image


ALPHA = Image.fromarray(np.dstack([SHADES] * 3 + [np.full_like(SHADES, 7)]))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (Image.fromarray(SHADES), "grey.png"),
        (Image.fromarray(SHADES.astype(np.uint16) * 257), "grey16.png"),
        (Image.fromarray(SHADES.astype(np.uint16) * 257), "grey16.tif"),
        (Image.fromarray(SHADES.astype(np.int32) * 257), "grey32.tif"),
        (Image.fromarray(SHADES).convert("LA"), "grey-alpha.png"),
        (ALPHA, "alpha.png"),
        (palette(), "palette.png"),
        (Image.fromarray(SHADES).convert("RGB").convert("CMYK"), "cmyk.tif"),
        (Image.fromarray(SHADES).convert("RGB"), "rgb.bmp"),
    ],
)
def test_every_bit_depth_gives_the_same_shades(
    tmp_path: Path, image: Image.Image, name: str
) -> None:
    read = np.array(read_image(saved(tmp_path, image, name), (2, 3)))
    assert (read == SHADES[..., None]).all()


def test_black_and_white(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.fromarray(SHADES > 50))
    assert (np.array(read_image(file, None))[..., 0] == (SHADES > 50) * 255).all()


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(SHADES.astype(np.float32)),
        Image.fromarray(SHADES.astype(np.int32) * 70_000),
        Image.fromarray(SHADES.astype(np.int32) - 50),
    ],
)
def test_a_range_that_is_unknown_is_refused(tmp_path: Path, image: Image.Image) -> None:
    with pytest.raises(ValueError, match=r"a\.tif: .* store 8 or 16 bits"):
        read_image(saved(tmp_path, image, "a.tif"), None)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"text"])
@pytest.mark.parametrize("read", [lambda file: read_image(file, None), read_label_map])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, read: object) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: cannot be read as an image"):
        read(tmp_path / "a.png")  # type: ignore[operator]


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path, Image.effect_noise((64, 64), 50), "a.jpg")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read as an image"):
        read_image(file, None)


def test_an_impossible_size_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(saved(tmp_path, Image.fromarray(SHADES)), None)


LABELS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
COLOURED = Image.fromarray(LABELS)
COLOURED.putpalette([*range(255, -1, -1)] * 3)


@pytest.mark.parametrize(
    ("image", "name", "labels"),
    [
        (Image.fromarray(LABELS), "grey.png", LABELS),
        (COLOURED, "palette.png", LABELS),
        (Image.fromarray(LABELS.astype(np.uint16) * 3), "16.png", LABELS.astype(int) * 3),
        (Image.fromarray(LABELS == 1), "1.png", LABELS == 1),
        (Image.fromarray(LABELS), "grey.tif", LABELS),
    ],
)
def test_labels_are_read_as_stored(
    tmp_path: Path, image: Image.Image, name: str, labels: object
) -> None:
    assert (read_label_map(saved(tmp_path, image, name)) == labels).all()


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("RGBA", "a.png"), ("LA", "a.png"), ("F", "a.tif"), ("L", "a.jpg")],
)
def test_colours_and_lossy_files_are_no_labels(tmp_path: Path, mode: str, name: str) -> None:
    file = saved(tmp_path, Image.fromarray(LABELS).convert(mode), name)
    with pytest.raises(ValueError, match=rf"{name}: \w+ with {mode} pixels is not a label map"):
        read_label_map(file)
