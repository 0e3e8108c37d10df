"""Files of DeepAA and AutoAlbument give the policy computed by hand; malformed files give a one-line error."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jointsearch.commands.command import run
from jointsearch.export.policy_albumentations import albumentations_json
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.readers.layered import MAX_SUB_POLICIES, Branch, listed
from search_spaces.readers.read import read_policy
from tests.policy_files import assert_one_line, deepaa, written

ROTATE, INVERT = OpChoice("Rotate", 1.0, 0.5), OpChoice("Invert")


def shares(policy: Policy) -> dict[tuple[OpChoice, ...], float]:
    total = sum(sub_policy.weight for sub_policy in policy.sub_policies)
    return {sub_policy.ops: sub_policy.weight / total for sub_policy in policy.sub_policies}


def test_few_sequences_of_deepaa_are_listed_with_their_exact_weights(tmp_path: Path) -> None:
    imported = read_policy(deepaa(tmp_path / "small.npz"))
    half, full, flip = ROTATE, OpChoice("Rotate", 1.0, 1.0), OpChoice("HorizontalFlip", 0.5)  # 15 and -30 degrees
    expected = {(): 1 / 8, (full,): 1 / 8, (flip,): 1 / 4, (half,): 1 / 8, (half, full): 1 / 8, (half, flip): 1 / 4}
    assert shares(imported.policy) == pytest.approx(expected)
    assert imported.policy.name == "small"
    assert imported.approximations == (
        "Rotate 0.75 times per image: the original takes the nearest pixel, here bilinear",
    )


def test_deepaas_crop_is_a_shift_by_every_number_of_pixels(tmp_path: Path) -> None:
    names = np.array(["RandCrop:(0)", "Rotate:(0)", "RandCutout:(0)"])
    probabilities = np.array([[1.0, 0, 0, 0]])
    imported = read_policy(deepaa(tmp_path / "crop.npz", op_names=names, policy_probs=probabilities))
    found = shares(imported.policy)
    assert len(found) == 25
    pixel = round(1 / 32 / 0.45, 6)
    assert found[()] == pytest.approx(1 / 81)
    assert found[(OpChoice("TranslateX", 1.0, pixel),)] == pytest.approx(2 / 81)
    last = round(4 / 32 / 0.45, 6)
    assert found[OpChoice("TranslateX", 1.0, pixel), OpChoice("TranslateY", 1.0, last)] == pytest.approx(4 / 81)
    assert imported.approximations[-1] == "RandCrop 1 times per image: the original fills with gray, here black"
    cut = read_policy(deepaa(tmp_path / "cut.npz", op_names=names, policy_probs=probabilities[:, ::-1].copy()))
    assert shares(cut.policy) == {(OpChoice("Cutout", 1.0, 1.0),): 1.0}  # 16 of 32 pixels; ours end at a fifth
    assert "RandCutout 1 times per image: the original is stronger than the range here" in " ".join(cut.approximations)


def published_size(path: Path) -> Path:
    """Six layers over 139 entries, in the order of DeepAA's list of ops."""
    moving = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
    ranged = (*moving, "Solarize", "Posterize", "Contrast", "Color", "Brightness", "Sharpness")
    names = ["Identity", *ranged, "AutoContrast", "Invert", "Equalize", "RandFlip", "RandCutout", "RandCrop"]
    entries = [(n, level) for n, op in enumerate(names) for level in (range(12) if op in ranged else [6])]
    logits = np.random.default_rng(0).normal(size=(6, len(entries)))
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ops, levels = np.array(entries).T[:, :, None]
    return deepaa(path, policy_probs=weights.astype(np.float32), ops=ops, mags=levels, op_names=np.array(names))


def test_a_policy_of_deepaas_size_is_sampled_with_every_probability_right_to_a_thousandth(tmp_path: Path) -> None:
    path = published_size(tmp_path / "deepaa.npz")
    start = time.process_time()
    imported = read_policy(path)
    assert time.process_time() - start < 2
    assert read_policy(path) == imported
    assert "1,000 of them were drawn (seed 0)" in imported.approximations[0]
    assert sum(sub_policy.weight for sub_policy in imported.policy.sub_policies) == 1000
    # Each of six layers draws Invert as often as its probability says, to one in 1,000.
    index = int(np.flatnonzero(np.load(path)["ops"] == 13)[0])
    wanted = np.load(path)["policy_probs"][:, index].sum()
    found = sum(row.weight * sum(choice.op == "Invert" for choice in row.ops) for row in imported.policy.sub_policies)
    assert abs(found / 1000 - wanted) <= 6 / 1000
    saved = tmp_path / "policy.json"
    imported.policy.save(saved)
    assert Policy.load(saved) == imported.policy


def test_stages_of_a_sample_are_independent_and_each_option_has_its_share() -> None:
    stage = ((0.3, (ROTATE,)), (0.7, (INVERT,)))
    rare = tuple((1 / 600, (OpChoice("Color", 1.0, n / 1000),)) for n in range(600))
    policy, said = listed([Branch(1.0, (stage, stage, rare))], "sample")
    assert sum(row.weight for row in policy.sub_policies) == MAX_SUB_POLICIES
    first = sum(row.weight for row in policy.sub_policies if row.ops[0] == ROTATE)
    both = sum(row.weight for row in policy.sub_policies if row.ops[:2] == (ROTATE, ROTATE))
    assert abs(first - 300) <= 1
    assert abs(both - 90) < 30  # three standard deviations of a hypergeometric draw of 300 out of 1,000
    assert len({row.ops[2] for row in policy.sub_policies}) == 600
    assert said[0].startswith("2.4e+03 sequences of ops")


def op(name: str, p: float = 1.0, **fields: object) -> dict[str, Any]:
    return {"__class_fullname__": f"albumentations.augmentations.transforms.{name}", "p": p, **fields}


def one_of(*children: object, p: float = 1.0) -> dict[str, Any]:
    return op("OneOf", p, transforms=list(children))


def sequence(*children: object, p: float = 1.0) -> dict[str, Any]:
    return op("Sequential", p, transforms=list(children))


def pipeline(*children: object) -> str:
    return json.dumps({"__version__": "1.0.0", "transform": op("Compose", transforms=list(children))})


def turned(degrees: float, p: float = 1.0, **changes: object) -> dict[str, Any]:
    fields = {"shift_limit_x": [0, 0], "shift_limit_y": [0, 0], "scale_limit": [0.0, 0.0], **changes}
    return op("ShiftScaleRotate", p, rotate_limit=[degrees, degrees], **fields)


def test_autoalbuments_sub_policies_and_stages_become_weighted_sequences(tmp_path: Path) -> None:
    first = sequence(one_of(turned(15, 0.25), op("NoOp", 0.75)), one_of(op("HorizontalFlip", 1.0)), p=0.2)
    second = sequence(one_of(op("Solarize", 0.1, threshold=[0.5, 0.5]), op("NoOp", 0.4)), p=0.6)
    imported = read_policy(written(tmp_path / "a.json", pipeline(one_of(first, second), op("Normalize"))))
    flip, solarize = OpChoice("HorizontalFlip"), OpChoice("Solarize", 1.0, 0.501953)  # of 256/255
    assert shares(imported.policy) == pytest.approx(
        {(ROTATE, flip): 1 / 16, (flip,): 3 / 16, (solarize,): 0.15, (): 0.6}
    )
    assert imported.approximations == (
        "ShiftScaleRotate 0.062 times per image: the original mirrors the image at its border, here black",
        "ShiftScaleRotate 0.062 times per image: the original has one fixed direction, here it is drawn per image",
        "Normalize 1 times per image: belongs to the data pipeline, left out",
    )


def test_a_transform_outside_a_one_of_acts_with_its_own_probability(tmp_path: Path) -> None:
    flip, choice = op("HorizontalFlip", 0.25), one_of(sequence(turned(15)), p=0.4)
    imported = read_policy(written(tmp_path / "a.json", pipeline(flip, choice)))
    flipped = OpChoice("HorizontalFlip")
    expected = {(flipped, ROTATE): 0.1, (flipped,): 0.15, (ROTATE,): 0.3, (): 0.45}
    assert shares(imported.policy) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("transform", "ours"),
    [
        (turned(-49.8), [OpChoice("Rotate", 1.0, 1.0)]),
        (turned(0, shift_limit_x=[-0.09, -0.09]), [OpChoice("TranslateX", 1.0, 0.2)]),
        (turned(3, shift_limit_y=[0.9, 0.9]), [OpChoice("Rotate", 1.0, 0.1), OpChoice("TranslateY", 1.0, 1.0)]),
        (op("Solarize", threshold=[64, 64]), [OpChoice("Solarize", 1.0, 0.75)]),  # 192 of 256 levels down
        (op("Solarize", threshold=128), [OpChoice("Solarize", 1.0, 0.5)]),
        (op("HorizontalFlip"), [OpChoice("HorizontalFlip")]),
        (op("NoOp"), []),
        (op("RGBShift", r_shift_limit=[0, 0], g_shift_limit=[-0.0, 0.0], b_shift_limit=[0, 0]), []),
        # 1 + .45 times the pixel; .18 added to gray .5 makes .68, a factor of 1.36.
        (
            op("RandomBrightnessContrast", contrast_limit=[0.45, 0.45], brightness_limit=0),
            [OpChoice("Brightness", 1.0, 0.5)],
        ),
        (
            op("RandomBrightnessContrast", contrast_limit=0, brightness_limit=[-0.18, -0.18]),
            [OpChoice("Brightness", 1.0, 0.4)],
        ),
        # Nine holes of 1 x 1 have the area of one of 3 x 3: 3 of 32 pixels, of a fifth.
        (op("CoarseDropout", max_holes=9, max_height=1, max_width=1), [OpChoice("Cutout", 1.0, 0.46875)]),
    ],
)
def test_an_op_of_albumentations_becomes_what_was_computed_by_hand(
    transform: dict[str, Any], ours: list[OpChoice], tmp_path: Path
) -> None:
    imported = read_policy(written(tmp_path / "a.json", pipeline(transform)))
    assert imported.policy.sub_policies == (SubPolicy(tuple(ours), 1.0),)


def test_an_op_that_is_always_applied_ignores_its_probability(tmp_path: Path) -> None:
    imported = read_policy(written(tmp_path / "a.json", pipeline(op("HorizontalFlip", 0.5, always_apply=True))))
    assert shares(imported.policy) == {(OpChoice("HorizontalFlip"),): 1.0}


def test_our_own_export_for_version_2_is_refused_and_not_misread(tmp_path: Path) -> None:
    exported = albumentations_json(Policy((SubPolicy((OpChoice("Solarize", 0.5, 0.25),)),)))
    with pytest.raises(InputError, match="has no threshold, which AutoAlbument writes"):
        read_policy(written(tmp_path / "a.json", exported.value))


def test_albumentations_ops_without_a_counterpart_are_refused_or_left_out(tmp_path: Path) -> None:
    shift = op("RGBShift", 0.1, r_shift_limit=[3, 3])
    stage = one_of(shift, op("VerticalFlip", 0.2), turned(15, 0.3, scale_limit=[2, 2]), op("NoOp", 0.4))
    path = written(tmp_path / "a.json", pipeline(stage))
    with pytest.raises(
        InputError, match=r"transforms\[0\].transforms\[0\]: op is 'RGBShift with r_shift_limit'"
    ) as error:
        read_policy(path)
    assert "(neither have 'VerticalFlip', 'ShiftScaleRotate with scale_limit')" in str(error.value)
    imported = read_policy(path, skip_unknown=True)
    assert shares(imported.policy) == pytest.approx({(): 0.7, (ROTATE,): 0.3})
    lost = "RGBShift with r_shift_limit 0.1 times per image, VerticalFlip 0.2 times per image, "
    assert imported.approximations[0].startswith(lost + "ShiftScaleRotate with scale_limit 0.3 times per image: has no")


def test_a_file_of_ours_is_read_as_it_is(tmp_path: Path) -> None:
    policy = Policy((SubPolicy((ROTATE,)), SubPolicy()), "mine")
    policy.save(tmp_path / "p.json")
    imported = read_policy(tmp_path / "p.json")
    assert (imported.policy, imported.policy.name, imported.approximations) == (policy, "mine", ())


def test_the_script_converts_a_table_by_its_name_and_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = written(tmp_path / "archive.py", "A = [[('Color', 1, 0.75)]]\nB = [[('Rotate', 1, 0.75)]]\n")
    saved, picture = tmp_path / "policy.json", tmp_path / "a.png"
    arguments = [f"policy={archive}", "name=A", f"save={saved}", f"out={picture}", "rows=1"]
    assert run("show_policy", arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    line = "approximated: Color x1: the original has one fixed direction, here it is drawn per image"
    assert printed == [line, str(saved), str(picture)]
    assert Policy.load(saved).sub_policies == (SubPolicy((OpChoice("Color", 1.0, 0.5),)),)
    assert picture.is_file()
    for wrong, said in (([f"save={saved}"], "exists; give a new name"), (["ops=[Rotate]"], "its own ops")):
        assert run("show_policy", [f"policy={archive}", "name=A", f"out={picture}", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert run("show_policy", ["policy=none", "name=A"]) == 2
    assert "name and skip_unknown are for files of others" in capsys.readouterr().err


SEVEN = one_of(*(sequence(op("NoOp")) for _ in range(7)))
ANY = op("NoOp")
MALFORMED_JSON = {
    "a number": ("7", "policy.json is 7; wanted a policy (format:"),
    "another object": ('{"policies": []}', "or a list of (op, probability, level) rows"),
    "another format": ('{"format": "timm"}', "wanted a policy (format: 'jointsearch-policy')"),
    "not json": ("{", "is not valid JSON"),
    "too deep": ("[" * 30, "nested deeper than 20 levels"),
    "no transform": ('{"transform": null}', "transform is None; wanted an object, as albumentations.save writes it"),
    "no class": ('{"transform": {}}', "transform.__class_fullname__ is None"),
    "p above one": (pipeline(op("NoOp", 2)), "transforms[0].p is 2; wanted a number from 0 to 1"),
    "p a text": (pipeline(op("NoOp", "1")), "transforms[0].p is '1'"),  # type: ignore[arg-type]
    "no children": (pipeline(op("OneOf")), "transforms[0].transforms is None; wanted a list of transforms"),
    "a child that is none": (pipeline(one_of(ANY, 3)), "transforms[0].transforms[1] is 3; wanted an object"),
    "nothing likely": (pipeline(one_of(op("NoOp", 0))), "p of all transforms of this OneOf is 0"),
    "unknown": (pipeline(op("Rotat")), "transforms[0]: op is 'Rotat', which has no counterpart here"),
    "wide holes": (
        pipeline(op("CoarseDropout", max_holes=8, min_holes=1, max_height=8, max_width=8)),
        "min_holes is 1; wanted 8, the value of max_holes",
    ),
    "fields of version 2": (pipeline(op("Solarize", threshold_range=[0.5, 0.5])), "transforms[0] has no threshold"),
    "wide limits": (pipeline(turned(0, shift_limit_x=[-0.1, 0.1])), "shift_limit_x is [-0.1, 0.1]; wanted two equal"),
    "three limits": (pipeline(turned(0, shift_limit_x=[1, 1, 1])), "shift_limit_x is [1, 1, 1]"),
    "a limit of text": (pipeline(op("Solarize", threshold="high")), "threshold is 'high'; wanted two equal numbers"),
    "too many ways": (pipeline(*[SEVEN] * 7), "transform has more than 1,000 possible paths"),
    "too many stages": (pipeline(*[op("HorizontalFlip")] * 17), "at most 16 are allowed"),
    "a table with a typo": ('[[["Rotat", 0.5, 0.75]]]', "did you mean Rotate or Contrast?"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED_JSON.values(), ids=MALFORMED_JSON.keys())
def test_a_malformed_json_gives_one_line(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_line(written(tmp_path / "policy.json", content), said, monkeypatch)


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("policy.npz", "cifar", "holds one policy, but name is 'cifar'; leave name out"),
        ("missing.npz", None, "missing.npz is not there"),
        ("missing.json", None, "missing.json is not there"),
        ("policy.pt", None, "has the suffix '.pt'; wanted one of"),
        (".", None, "has the suffix ''"),
    ],
)
def test_a_wrong_path_or_name_gives_one_line(file: str, name: str | None, said: str, tmp_path: Path) -> None:
    deepaa(tmp_path / "policy.npz")
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        read_policy(tmp_path / file, name)
