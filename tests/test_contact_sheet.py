"""The contact sheet shows what a policy does, pixel by pixel, and says it in the ops' own units."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jointsearch.commands.command import run
from jointsearch.report import contact_sheet as sheets
from jointsearch.report.contact_sheet import UNITS, amount_text, contact_sheet, folder_images, heaviest, photo_images
from search_spaces.augment.table import OPS
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule

INVERT = Policy((SubPolicy((OpChoice("Invert"),)),), "negative")


@pytest.fixture
def levels(images: Tensor) -> Tensor:
    return images.mul(255).round().to(torch.uint8)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pixels(policy: Policy, images: Tensor) -> Tensor:
    """The picture as (height, width, 3) levels."""
    file = io.BytesIO()
    contact_sheet(policy, images, noise()).savefig(file)
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).int()


def cell(picture: Tensor, row: int, column: int) -> Tensor:
    top, left = sheets.HEADER + row * (96 + sheets.GAP), sheets.IMAGES_AT + column * (96 + sheets.GAP)
    return picture[top : top + 96, left : left + 96]


def texts(policy: Policy, images: Tensor, rows: int | None = None) -> list[str]:
    return [text.get_text() for text in contact_sheet(policy, images, noise(), rows).axes[0].texts]


def test_the_first_row_shows_the_images_and_the_next_what_the_sub_policy_makes_of_them(levels: Tensor) -> None:
    picture = pixels(INVERT, levels)
    for column, image in enumerate(levels):
        enlarged = image.permute(1, 2, 0).int().repeat_interleave(3, 0).repeat_interleave(3, 1)
        assert torch.equal(cell(picture, 0, column), enlarged)
        assert torch.equal(cell(picture, 1, column), 255 - enlarged)


def test_there_is_a_row_for_every_sub_policy_even_for_one_of_weight_zero(levels: Tensor) -> None:
    rows = (SubPolicy(), SubPolicy((OpChoice("Invert"),), 0.0), SubPolicy((OpChoice("Invert"), OpChoice("Invert"))))
    picture = pixels(Policy(rows), levels)
    original = cell(picture, 0, 3)
    assert torch.equal(cell(picture, 1, 3), original)
    assert torch.equal(cell(picture, 2, 3), 255 - original)
    assert torch.equal(cell(picture, 3, 3), original)
    assert len(picture) == sheets.HEADER + 4 * (96 + sheets.GAP) - sheets.GAP + sheets.MARGIN


def test_a_row_grows_with_its_ops_so_that_no_two_lines_overlap(levels: Tensor) -> None:
    long = Policy((SubPolicy((OpChoice("Invert"),) * 9),))
    written = contact_sheet(long, levels, noise()).axes[0].texts
    lines = [text.get_position()[1] for text in written if text.get_text() == "Invert"]
    assert [later - earlier for earlier, later in itertools.pairwise(lines)] == [sheets.LINE] * 8
    assert len(pixels(long, levels)) == sheets.HEADER + 2 * (9 * sheets.LINE + sheets.GAP) - sheets.GAP + sheets.MARGIN


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (2, 1, 8, 8), (3, 4, 20, 33), (2, 3, 300, 130), (1, 3, 1, 1)])
def test_images_of_any_size_and_channel_count_can_be_shown(shape: tuple[int, ...]) -> None:
    images = torch.randint(256, shape, generator=noise(), dtype=torch.uint8)
    assert pixels(named_policy("randaugment-n1-m9"), images).shape[1] >= sheets.MIN_WIDTH


def test_a_row_names_its_ops_with_probability_and_amount(levels: Tensor) -> None:
    ops = (OpChoice("Rotate", 0.7, 0.4), OpChoice("Invert", 0.25))
    found = texts(Policy((SubPolicy(ops),), "cost: 3$ or 5$"), levels)
    assert {"Rotate", "p 0.70", "±12.0 degrees", "Invert", "p 0.25", "original", "1 sub-policy"} <= set(found)
    assert r"cost: 3\$ or 5\$" in found  # no formula


def test_a_long_name_is_cut(levels: Tensor) -> None:
    assert "n" * 60 + "..." in texts(Policy((SubPolicy(),), "n" * 61), levels)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (OpChoice("Rotate", 1.0, 0.4), "±12.0 degrees"),
        (OpChoice("ShearX", 1.0, 0.5), "±0.15 slope"),
        (OpChoice("TranslateY", 1.0, 1.0), "±45 % of height"),
        (OpChoice("Brightness", 1.0, 0.5), "x 0.55 or 1.45"),
        (OpChoice("Color", 1.0, 0.0), "x 1.00"),
        (OpChoice("Solarize", 1.0, 0.5), "from level 128"),
        (OpChoice("Posterize", 1.0, 0.75), "5 bits"),
        (OpChoice("Cutout", 1.0, 0.5), "10 % of the side"),
        (OpChoice("SamplePairing", 1.0, 0.5), "20 % of another"),
        (OpChoice("Equalize", 1.0), ""),
    ],
)
def test_an_amount_is_written_in_the_ops_own_unit(choice: OpChoice, text: str) -> None:
    assert amount_text(choice) == text


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.has_magnitude])
def test_every_unit_has_its_own_wording(name: str) -> None:
    assert OPS[name].unit in UNITS


def test_weights_are_shown_where_they_differ(levels: Tensor) -> None:
    uneven = Policy((SubPolicy((), 1.0), SubPolicy((OpChoice("Invert"),), 3.0)))
    assert {"25.0%", "75.0%", "2 sub-policies, weighted"} <= set(texts(uneven, levels))
    even = texts(Policy((SubPolicy((), 2.0), SubPolicy((), 2.0))), levels)
    assert "2 sub-policies, all equally likely" in even
    assert not any("%" in text for text in even)


@pytest.mark.parametrize(
    ("weights", "rows", "places"),
    [
        ((1, 1, 1), 5, [0, 1, 2]),
        ((1, 5, 2, 4), 2, [1, 3]),
        ((1, 1, 9, 1, 1, 1, 1), 3, [2, 1, 5]),  # one above, then two spread evenly over six equals
        ((1,) * 100, 4, [12, 37, 62, 87]),
    ],
)
def test_a_big_policy_shows_its_heaviest_sub_policies(weights: tuple[int, ...], rows: int, places: list[int]) -> None:
    assert heaviest(Policy(tuple(SubPolicy((), weight) for weight in weights)), rows) == places


def test_a_sheet_says_how_many_sub_policies_it_leaves_out(levels: Tensor) -> None:
    found = texts(named_policy("trivialaugment"), levels[:1], rows=3)
    assert "14 sub-policies, all equally likely: 3 of 14, evenly spaced" in found
    amounts = {"up to ±30.0 degrees", "from level 256 to 0", "8 bits to 4 bits", "up to x 0.10 or 1.90"}
    whole = set(texts(named_policy("trivialaugment"), levels[:1], rows=14))
    assert amounts <= whole
    twice = texts(named_policy("trivialaugment-x2"), levels[:1], rows=3)
    assert "14 sub-policies, all equally likely, 2 drawn for each image: 3 of 14, evenly spaced" in twice
    assert "25 sub-policies, all equally likely: 8 of 25, evenly spaced" in texts(
        named_policy("autoaugment"), levels[:1], rows=8
    )
    assert {"AutoContrast", "Equalize", "nothing"} <= whole


def test_the_photos_are_eight_colorful_squares() -> None:
    photos = photo_images()
    assert (photos.shape, photos.dtype) == ((8, 3, 96, 96), torch.uint8)
    assert photos.float().std(dim=(1, 2, 3)).min() > 20


def test_a_folder_gives_images_spread_evenly_over_it_and_the_folders_in_it(tmp_path: Path) -> None:
    for number in range(20):
        place = tmp_path / f"class{number // 10}"
        place.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(place / f"{number:02}.png")
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").touch()
    assert folder_images(tmp_path, 4)[:, 0, 0, 0].tolist() == [2, 7, 12, 17]
    assert folder_images(tmp_path / "class0").shape == (8, 3, 96, 96)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(0, 3, 8, 8, dtype=torch.uint8)],
)
def test_what_is_no_batch_of_uint8_images_gives_one_line(images: Tensor) -> None:
    with pytest.raises(InputError, match="give 1 to 32 uint8 images"):
        contact_sheet(INVERT, images, noise())


def test_the_script_writes_a_sheet_for_a_name_and_one_for_every_span_of_a_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PolicySchedule(((0, named_policy("none")), (5, INVERT))).save(tmp_path / "schedule.json")
    assert run("show_policy", [f"policy={tmp_path}/schedule.json", f"out={tmp_path}/s.png"]) == 0
    assert run("show_policy", ["policy=random", "rows=1", "dataset=digits", f"out={tmp_path}/r.png"]) == 0
    written = ["s_from_epoch_0.png", "s_from_epoch_5.png", "r.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in written]
    for name in written:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert picture.height == sheets.HEADER + 2 * (96 + sheets.GAP) - sheets.GAP + sheets.MARGIN


def test_of_a_policy_for_each_of_many_epochs_a_few_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PolicySchedule(tuple((epoch, INVERT) for epoch in range(40))).save(tmp_path / "schedule.json")
    assert run("show_policy", [f"policy={tmp_path}/schedule.json", f"out={tmp_path}/s.png", "rows=1"]) == 0
    told, *paths = capsys.readouterr().out.splitlines()
    assert told == "a policy for each of 40 spans of epochs; 8 of them are drawn"
    assert paths == [f"{tmp_path}/s_from_epoch_{epoch}.png" for epoch in range(2, 40, 5)]
    assert len(list(tmp_path.glob("*.png"))) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["policy=trivial"], "did you mean trivialaugment"),
        (["policy=missing.json"], "missing.json is not there"),
        (["policy=none", "out=sheet.jpg"], "ends in .png"),
        (["policy=none", "out=nowhere/sheet.png"], "in a folder that exists"),
        (["policy=none", "save=saved.json", "out=nowhere/sheet.png"], "in a folder that exists"),
        (["policy=none", "out=/proc/sheet.png"], "/proc/sheet.png cannot be written"),
        (["policy=none", "save=/proc/saved.json", "rows=1", "out=/proc/sheet.png"], "cannot be written"),
        (["policy=none", "rows=0"], "rows is 0"),
        (["policy=none", "images=nowhere"], "nowhere is not a folder"),
        (["policy=none", "images=."], "holds no image file"),
        (["policy=none", "images=.", "dataset=digits"], "give one of them"),
        (["policy=autoaugment", "ops=[Rotate]"], "leave ops out"),
        (["polcy=none"], "did you mean policy"),
    ],
)
def test_a_wrong_argument_gives_one_line_exit_code_two_and_no_file(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("show_policy", arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err
    assert list(tmp_path.iterdir()) == []
