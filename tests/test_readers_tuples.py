"""Published policies do the same here as in PIL, and every approximation is listed."""

import time
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn.functional import max_pool2d

from search_spaces.augment.op import OpNoise
from search_spaces.augment.table import OPS
from search_spaces.controls import AUTOAUGMENT, named_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice
from search_spaces.readers.conversion import policy_from_rows
from search_spaces.readers.tuples import TEN, TUPLES, find_table, policy_from_tuples, read_tuples

LEVEL = 1 / 255
# Fast AutoAugment's and DADA's ranges, level 0 and level 1 (DADA, augment_list).
RANGES = {
    "ShearX": (-0.3, 0.3),
    "ShearY": (-0.3, 0.3),
    "TranslateX": (-0.45, 0.45),
    "TranslateY": (-0.45, 0.45),
    "TranslateXAbs": (0, 10),
    "TranslateYAbs": (0, 10),
    "Rotate": (-30, 30),
    "AutoContrast": (0, 1),
    "Invert": (0, 1),
    "Equalize": (0, 1),
    "Solarize": (0, 256),
    "Posterize": (4, 8),
    "Contrast": (0.1, 1.9),
    "Color": (0.1, 1.9),
    "Brightness": (0.1, 1.9),
    "Sharpness": (0.1, 1.9),
}
ENHANCE = ("Contrast", "Color", "Brightness", "Sharpness")
MOVING = {
    "ShearX": lambda v, w, h: (1, v, 0, 0, 1, 0),
    "ShearY": lambda v, w, h: (1, 0, 0, v, 1, 0),
    "TranslateX": lambda v, w, h: (1, 0, v * w, 0, 1, 0),
    "TranslateY": lambda v, w, h: (1, 0, 0, 0, 1, v * h),
    "TranslateXAbs": lambda v, w, h: (1, 0, v, 0, 1, 0),
    "TranslateYAbs": lambda v, w, h: (1, 0, 0, 0, 1, v),
}


def in_pil(op: str, value: float, image: Image.Image) -> Image.Image:
    """The op at a value in its own unit, as the published code calls PIL, but bilinear."""
    if op in MOVING:
        matrix = MOVING[op](value, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if op == "Rotate":
        return image.rotate(value, Image.Resampling.BILINEAR)
    if op in ENHANCE:
        return getattr(ImageEnhance, op)(image).enhance(value)
    if op == "Solarize":
        return ImageOps.solarize(image, value)
    if op == "Posterize":
        return ImageOps.posterize(image, int(value))
    return getattr(ImageOps, op.lower())(image)


def expected(op: str, value: float, images: Tensor) -> Tensor:
    rows = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    changed = [torch.tensor(bytearray(in_pil(op, value, Image.fromarray(row)).tobytes())) for row in rows]
    return torch.stack(changed).reshape(rows.shape).permute(0, 3, 1, 2) / 255


def applied(choice: OpChoice, sign: float, images: Tensor) -> Tensor:
    count = len(images)
    noise = OpNoise(torch.full((count,), sign), torch.full((count, 2), 0.5), torch.arange(count))
    return OPS[choice.op](images, torch.full((count,), choice.magnitude or 0.0), noise)


def distance(op: str, value: float, choice: OpChoice, sign: float, images: Tensor) -> float:
    """The mean over all pixels for color ops; for moving ones the greatest over the pixels well inside."""
    difference = (applied(choice, sign, images) - expected(op, value, images)).abs()
    if op not in MOVING and op != "Rotate":
        return float(difference.mean())
    white = torch.ones_like(images)
    inside = (applied(choice, sign, white) > 0.999) & (expected(op, value, white) > 0.999)
    # At the border PIL blends with the outside differently: look two pixels further in.
    inside = max_pool2d(1 - inside.float(), 5, 1, 2) == 0
    return float(difference[inside].max()) if inside.float().mean() > 0.1 else 1.0


def assert_same_as_pil(op: str, value: float, choice: OpChoice, images: Tensor) -> None:
    """In one of its two directions, our op does what PIL does."""
    tolerance = 2 * LEVEL if op in MOVING or op == "Rotate" else LEVEL
    assert min(distance(op, value, choice, sign, images) for sign in (1.0, -1.0)) <= tolerance


@pytest.mark.parametrize("level", [0.0, 0.13, 0.25, 0.5, 0.62, 0.9, 1.0])
@pytest.mark.parametrize("op", RANGES)
def test_a_level_from_0_to_1_means_what_it_means_in_pil(op: str, level: float, images: Tensor) -> None:
    low, high = RANGES[op]
    choice = policy_from_tuples([[(op, 1.0, level)]]).policy.sub_policies[0].ops[0]
    assert choice.probability == 1.0
    assert_same_as_pil(op, level * (high - low) + low, choice, images)


@pytest.mark.parametrize("name", AUTOAUGMENT)
def test_autoaugments_magnitudes_mean_what_they_mean_in_pil(name: str, images: Tensor) -> None:
    ranges = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
    for choice in {choice for sub_policy in named_policy(name).sub_policies for choice in sub_policy.ops}:
        magnitude = choice.magnitude or 0.0
        values = [0.0]
        if choice.op in ranges:
            values = [ranges[choice.op] * magnitude, -ranges[choice.op] * magnitude]
        elif choice.op in ENHANCE:
            values = [1 + 0.9 * magnitude, 1 - 0.9 * magnitude]
        elif choice.op == "Solarize":
            values = [256 - 256 * magnitude]
        elif choice.op == "Posterize":
            values = [8 - round(4 * magnitude)]
        for value in values:
            assert_same_as_pil(choice.op, value, choice, images)


@pytest.mark.parametrize("op", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", *ENHANCE])
def test_level_one_half_of_a_symmetric_range_is_nothing(op: str) -> None:
    imported = policy_from_tuples([[(op, 0.3, 0.5)]])
    assert imported.policy.sub_policies[0].ops == (OpChoice(op, 0.3, 0.0),)
    assert imported.approximations == ()


@pytest.mark.parametrize(
    ("op", "level", "ours"),
    [
        ("Rotate", 0.75, OpChoice("Rotate", 1.0, 0.5)),  # 15 of 30 degrees
        ("Rotate", 0.25, OpChoice("Rotate", 1.0, 0.5)),  # -15 degrees; both draw the direction
        ("Brightness", 0.0, OpChoice("Brightness", 1.0, 1.0)),  # factor .1
        ("Solarize", 0.0, OpChoice("Solarize", 1.0, 1.0)),  # threshold 0 inverts everything
        ("Solarize", 1.0, OpChoice("Solarize", 1.0, 0.0)),
        ("Posterize", 0.49, OpChoice("Posterize", 1.0, 0.75)),  # int(5.96) = 5 bits
        ("Posterize2", 0.99, OpChoice("Posterize", 1.0, 1.0)),  # int(3.96) = 3 bits, ours end at 4
        ("Posterize2", 1.0, OpChoice("Posterize", 1.0, 1.0)),  # 4 bits
        ("Cutout", 0.5, OpChoice("Cutout", 1.0, 0.5)),
        ("CutoutAbs", 0.16, OpChoice("Cutout", 1.0, 0.5)),  # 3.2 of 32 pixels, a tenth; ours end at a fifth
        ("CutoutAbs", 1.0, OpChoice("Cutout", 1.0, 1.0)),  # 20 of 32 pixels
        ("TranslateXAbs", 0.9, OpChoice("TranslateX", 1.0, 0.625)),  # 9 of 32 pixels, of .45
        ("Invert", 0.7, OpChoice("Invert", 1.0)),
    ],
)
def test_a_level_becomes_the_magnitude_computed_by_hand(op: str, level: float, ours: OpChoice) -> None:
    assert policy_from_tuples([[(op, 1.0, level)]]).policy.sub_policies[0].ops == (ours,)


# Values that AutoAugment's levels of ten have in Fast AutoAugment: shears .03, rotation 3 degrees and solarize 25.6 a
# level, factors .1 + .18 a level, shifts a pixel a level; cut to whole numbers where they are 8-bit or degrees.
@pytest.mark.parametrize(
    ("op", "level", "ours"),
    [
        ("ShearY", 8, OpChoice("ShearY", 1.0, 0.8)),
        ("TranslateXAbs", 9, OpChoice("TranslateX", 1.0, 0.625)),  # 9 of 32 pixels, of .45
        ("Rotate", 2, OpChoice("Rotate", 1.0, 0.2)),
        ("Solarize", 8, OpChoice("Solarize", 1.0, 0.796875)),  # threshold 256 - 204
        ("Solarize", 0, OpChoice("Solarize", 1.0, 0.0)),
        ("Posterize2", 7, OpChoice("Posterize", 1.0, 1.0)),  # 4 - 2 bits, ours end at 4
        ("Color", 0, OpChoice("Color", 1.0, 1.0)),  # factor .1
        ("Color", 5, OpChoice("Color", 1.0, 0.0)),
        ("Color", 9, OpChoice("Color", 1.0, 0.8)),  # factor 1.72
        ("CutoutAbs", 3, OpChoice("Cutout", 1.0, 0.9375)),  # 6 of 32 pixels, of a fifth
        ("Invert", None, OpChoice("Invert", 1.0)),
    ],
)
def test_levels_of_ten_become_the_magnitudes_computed_by_hand(op: str, level: int | None, ours: OpChoice) -> None:
    assert policy_from_rows([[(op, 1.0, level)]], TEN, "ten").policy.sub_policies[0].ops == (ours,)


def test_ops_without_a_counterpart_are_left_out_when_asked_and_listed() -> None:
    rows = [[("Flip", 0.5, 0.5), ("Invert", 0.5, 0.5)], [("Flip", 1, 0.1), ("Blur", 0.5, 0.9)]]
    imported = policy_from_tuples(rows, skip_unknown=True)
    assert [sub_policy.ops for sub_policy in imported.policy.sub_policies] == [(OpChoice("Invert", 0.5),), ()]
    assert imported.approximations == ("Flip x2, Blur x1: has no counterpart here, left out",)


def test_what_is_only_approximated_is_listed_with_its_op_and_how_often() -> None:
    rows = [
        [("Brightness", 0.5, 0.9), ("Rotate", 0.5, 0.7)],
        [["Brightness", 0.5, 0.1], ["Posterize2", 1, 0.2]],
        [("CutoutAbs", 0.2, 1.0), ("Color", 1.0, 0.5)],
        [("Posterize", 0.2, 0.3), ("Solarize", 1.0, 0.6), ("Invert", 0.5, 0.1)],
    ]
    assert policy_from_tuples(rows).approximations == (
        "Brightness x2: the original has one fixed direction, here it is drawn per image",
        "Rotate x1: the original takes the nearest pixel, here bilinear",
        "Posterize2 x1, CutoutAbs x1: the original is stronger than the range here, clipped to magnitude 1",
        "CutoutAbs x1: the original is up to a pixel wider and stays inside at the left and top border, "
        "here it is clipped",
        "CutoutAbs x1: the original counts in pixels, here in shares of the side; equal on 32x32 images",
    )


def test_rows_probabilities_and_order_are_kept() -> None:
    rows = [[("Invert", 0.25, 0.1), ("Rotate", 0.75, 1.0)], [("Equalize", 0.0, 0.0)]]
    policy = policy_from_tuples(rows, "mine").policy
    found = [[(choice.op, choice.probability) for choice in sub_policy.ops] for sub_policy in policy.sub_policies]
    assert found == [[("Invert", 0.25), ("Rotate", 0.75)], [("Equalize", 0.0)]]
    assert policy.name == "mine"
    assert {sub_policy.weight for sub_policy in policy.sub_policies} == {1.0}


SOURCE = """raise SystemExit("this file must never run")
from somewhere import get_augment
FIRST = a_long_name = [[('Rotate', 0.5, 0.75)]]
l = [(ShearX, -0.3, 0.3)]
NAMES = ['none', 'skip']
def second():
    p = [[["Invert", 0.25, 0.1]], [["Equalize", 1, 0]]]
    return p
def third():
    return [[("Color", 0.5, 0.5)]]
@autoaug2arsaug
def levels_of_ten():
    'A sentence about it.'
    part: list = [[('Rotate', 0.7, 2)]]
    part += [[('Invert', 0.7, 2)]]
    return part + FIRST
def before_its_rows():
    return FIRST + second_rows + FIRST
second_rows = [[('Equalize', 1, 0)]]
both = FIRST + second_rows + [[('Color', 1, 0)]]
@another
def decorated():
    return [[('Rotate', 0.7, 0.2)]]
def filled():
    p = [[('Rotate', 0.7, 0.2)]]
    p.append(something())
    return p
def looped():
    p = [[('Rotate', 0.7, 0.2)]]
    for more in range(3):
        p = p + p
    return p
def set_inside():
    p = [[('Rotate', 0.7, 0.2)]]
    p[0] = []
    return p
grows = [[('Rotate', 0.7, 0.2)]]
grows.extend(FIRST)
"""


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("FIRST", ["Rotate"]),
        ("a_long_name", ["Rotate"]),
        ("second", ["Invert", "Equalize"]),
        ("third", ["Color"]),
        ("levels_of_ten", ["Rotate", "Invert", "Rotate"]),
        ("both", ["Rotate", "Equalize", "Color"]),
    ],
)
def test_a_table_is_read_from_python_source_by_its_name_without_running_it(
    name: str, ops: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "archive.py"
    path.write_text(SOURCE)
    imported = read_tuples(path, name)
    assert imported.policy.name == name
    assert [sub_policy.ops[0].op for sub_policy in imported.policy.sub_policies] == ops


COMPUTED = ["before_its_rows", "decorated", "filled", "looped", "set_inside", "grows"]


@pytest.mark.parametrize("name", [None, "FORTH", *COMPUTED, "l", "NAMES"])
def test_a_choice_among_tables_lists_those_that_are_written_out(name: str | None, tmp_path: Path) -> None:
    path = tmp_path / "archive.py"
    path.write_text(SOURCE)
    with pytest.raises(
        InputError, match=r"these tables: FIRST, second, third, levels_of_ten, second_rows, both; .*name="
    ):
        read_tuples(path, name)


@pytest.mark.parametrize("file", ["policy.json", "policy.txt"])
def test_a_list_on_its_own_is_a_table(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text('[[["Rotate", 0.5, 0.75], ["Invert", 1, 0]]]')
    assert find_table(path).rows == [[["Rotate", 0.5, 0.75], ["Invert", 1, 0]]]
    assert read_tuples(path).policy.name == "policy"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "wanted [["),
        ({}, "wanted [["),
        ("[[]]", "wanted [["),
        ([("Rotate", 0.5, 0.5)], "op 0 is 'Rotate'; wanted (op, probability, level)"),
        ([7], "sub-policy 0 is 7"),
        ([[("Rotate", 0.5)]], "wanted (op, probability, level)"),
        ([[(print, 0.5, 0.5)]], "wanted (op, probability, level)"),
        (
            [[], [("Rotat", 0.5, 0.5)]],
            "sub-policy 1, op 0: op is 'Rotat', which has no counterpart here; did you mean Rotate",
        ),
        (
            [[("Flip", 0.5, 0.5), ("Blur", 1, None)]],
            "op 0: op is 'Flip', which has no counterpart here (neither have 'Blur'); choose one of the 19 known",
        ),
        ([[("Rotate", 0.7, 2)]], "level of Rotate is 2; wanted a number from 0 to 1; divide"),
        ([[("Rotate", 1.5, 0.2)]], "probability of Rotate is 1.5; wanted"),
        ([[("Rotate", True, 0.2)]], "probability of Rotate is True; wanted"),
        ([[("Rotate", 0.5, float("nan"))]], "level of Rotate is nan; wanted"),
        ([[("Rotate", 0.5, None)]], "level of Rotate is None; wanted"),
        ([[("Invert", 0.5, "0.5")]], "level of Invert is '0.5'; wanted"),
        ([[("Rotate", 0.5, 0.5)] * 17], "at most 16"),
    ],
)
def test_a_malformed_table_gives_one_line_that_names_the_place(rows: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        policy_from_tuples(rows)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


HOSTILE = {
    "operators": "X = " + "-" * 200_000 + "1",
    "brackets": "X = " + "[" * 200_000,
    "attributes": "X = " + "a." * 100_000 + "a",
    "calls": "X = f" + "()" * 100_000,
    "sums": "X = " + "1+" * 100_000 + "1",
    "lambdas": "X = " + "lambda:" * 40_000 + "1",
    "no table": "X = " + "y=" * 50_000 + "1",
    "long sum": "X = [[('Rotate', 0.5, 0.5)]]\nY = X" + " + X" * 50_000,
    "code": "X = __import__('os').system('touch marker')",
    "code inside": "X = [[(__import__('os').system('touch marker'), 0.5, 0.5)]]",
    "nul": "X = [['\0']]",
    "long number": "X = [[('Rotate', " + "9" * 10_000 + ", 1)]]",
    "half a file": "X = [[('Rotate', 0.5,",
    "empty": "",
    "not text": b"\xff\xfe\x00",
    "json": ("x.json", '{"a": 1, "a": 2}'),
    "deep json": ("x.json", "[" * 100_000),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_gives_one_line_in_a_second_and_runs_nothing(
    content: str | bytes | tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, data = content if isinstance(content, tuple) else ("table.py", content)
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    start = time.process_time()
    with pytest.raises(InputError) as error:
        read_tuples(path)
    assert time.process_time() - start < 1
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [name]


def test_sums_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    path.write_text("X = [[('Rotate', 0.5, 0.75)]]\n" + "X = X + X\n" * 18)  # 2^18 rows
    with pytest.raises(InputError, match=r"sums.py adds up more than 20,000 rows; write the table out"):
        read_tuples(path)


def test_a_file_longer_than_any_published_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("X = [[('Rotate', 0.5, 0.75)]]\n" + "#" * 300_000)
    with pytest.raises(InputError, match=r"more than 300,000 bytes; .* check the path"):
        read_tuples(path)


@pytest.mark.parametrize("place", ["missing.py", "."])
def test_a_missing_file_or_a_folder_gives_one_line(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is (not there|a folder); give the path"):
        read_tuples(tmp_path / place)


def test_every_op_of_theirs_reaches_an_op_of_ours_and_lists_the_ranges_checked_here() -> None:
    assert {theirs.op for dialect in (TUPLES, TEN) for theirs in dialect.ops.values()} <= set(OPS)
    assert set(TUPLES.ops) - set(RANGES) == {"Posterize2", "Cutout", "CutoutAbs"}
