"""Files of DeepAA and AutoAlbument give the policy computed by hand; whatever else lies in them, one line."""

import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.door import run
from scripts.show_policy import main
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.readers.layered import MAX_SUB_POLICIES, Branch, listed
from search_spaces.readers.npz import read_npz
from search_spaces.readers.read import read_policy

ROTATE, INVERT = OpChoice("Rotate", 1.0, 0.5), OpChoice("Invert")


def deepaa(path: Path, **changes: object) -> Path:
    """Two layers over four entries: nothing, rotation at level 9 of 12 and at level 0, and a flip."""
    arrays = {
        "policy_probs": np.array([[0.5, 0.5, 0, 0], [0.25, 0, 0.25, 0.5]], dtype=np.float32),
        "l_ops": 3,
        "l_mags": 13,
        "ops": np.array([[0], [1], [1], [2]], dtype=np.int32),
        "mags": np.array([[6], [9], [0], [6]], dtype=np.int32),
        "op_names": np.array(["Identity:(0.0,,1.0)", "Rotate:(-30.0,,30.0)", "RandFlip:(0.0,,1.0)"]),
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not ...})  # type: ignore[arg-type]
    return path


def shares(policy: Policy) -> dict[tuple[OpChoice, ...], float]:
    total = sum(sub_policy.weight for sub_policy in policy.sub_policies)
    return {sub_policy.ops: sub_policy.weight / total for sub_policy in policy.sub_policies}


def test_few_sequences_of_deepaa_are_listed_with_their_exact_weights(tmp_path: Path) -> None:
    imported = read_policy(deepaa(tmp_path / "small.npz"))
    half, full, flip = ROTATE, OpChoice("Rotate", 1.0, 1.0), OpChoice("HorizontalFlip", 0.5)  # 15 and -30 degrees
    expected = {(): 1 / 8, (full,): 1 / 8, (flip,): 1 / 4, (half,): 1 / 8, (half, full): 1 / 8, (half, flip): 1 / 4}
    assert shares(imported.policy) == pytest.approx(expected)
    assert imported.policy.name == "small"
    assert imported.approximations == ("Rotate 0.75 times per image: takes the nearest pixel there, bilinear here",)


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
    assert imported.approximations[-1] == "RandCrop 1 times per image: fills with gray there, black here"
    cut = read_policy(deepaa(tmp_path / "cut.npz", op_names=names, policy_probs=probabilities[:, ::-1].copy()))
    assert shares(cut.policy) == {(OpChoice("Cutout", 1.0, 1.0),): 1.0}  # 16 of 32 pixels; ours end at a fifth
    assert "RandCutout 1 times per image: stronger there than our range ends" in " ".join(cut.approximations)


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


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


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
        "ShiftScaleRotate 0.062 times per image: mirrors the picture at its border, black here",
        "ShiftScaleRotate 0.062 times per image: one fixed direction there, drawn per image here",
        "Normalize 1 times per image: belongs to the data pipeline, left out",
    )


def test_what_stands_outside_a_choice_acts_with_its_own_probability(tmp_path: Path) -> None:
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
        (op("RandomBrightnessContrast", brightness_limit=[-0.18, -0.18]), [OpChoice("Brightness", 1.0, 0.4)]),
        # Nine holes of 1 x 1 have the area of one of 3 x 3: 3 of 32 pixels, of a fifth.
        (op("CoarseDropout", max_holes=9, max_height=1, max_width=1), [OpChoice("Cutout", 1.0, 0.46875)]),
    ],
)
def test_an_op_of_albumentations_becomes_what_was_computed_by_hand(
    transform: dict[str, Any], ours: list[OpChoice], tmp_path: Path
) -> None:
    imported = read_policy(written(tmp_path / "a.json", pipeline(transform)))
    assert imported.policy.sub_policies == (SubPolicy(tuple(ours), 1.0),)


def test_albumentations_ops_without_a_counterpart_are_refused_or_left_out(tmp_path: Path) -> None:
    shift = op("RGBShift", 0.1, r_shift_limit=[3, 3])
    stage = one_of(shift, op("VerticalFlip", 0.2), turned(15, 0.3, scale_limit=[2, 2]), op("NoOp", 0.4))
    path = written(tmp_path / "a.json", pipeline(stage))
    with pytest.raises(
        InputError, match=r"transforms\[0\].transforms\[0\]: op is 'RGBShift with r_shift_limit'"
    ) as error:
        read_policy(path)
    assert "(nor have 'VerticalFlip', 'ShiftScaleRotate with scale_limit')" in str(error.value)
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
    assert run(main, "show_policy", arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    line = "approximated: Color x1: one fixed direction there, drawn per image here"
    assert printed == [line, str(saved), str(picture)]
    assert Policy.load(saved).sub_policies == (SubPolicy((OpChoice("Color", 1.0, 0.5),)),)
    assert picture.is_file()
    for wrong, said in (([f"save={saved}"], "exists; give a new name"), (["ops=[Rotate]"], "its own ops")):
        assert run(main, "show_policy", [f"policy={archive}", "name=A", f"out={picture}", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert run(main, "show_policy", ["policy=none", "name=A"]) == 2
    assert "name and skip_unknown are for files of others" in capsys.readouterr().err


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npz whose first array has this header."""
    text = header.encode("latin-1")
    return zipped(("policy_probs.npy", b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data))


def with_array(**changes: object) -> Callable[[Path], object]:
    return lambda path: deepaa(path, **changes)


FLOATS = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}"
PROBABILITIES = np.full((2, 4), 0.25)
# What is in the file, and what the one line must say.
MALFORMED_NPZ: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "empty": (b"", "is no readable .npz"),
    "text": (b"policy", "is no readable .npz"),
    "half": (zipped(("a", b"1" * 1000))[:60], "is no readable .npz"),
    "too long": (bytes(1_000_001), "more than 1,000,000 bytes"),
    "no arrays": (zipped(), "holds 0 arrays named policy_probs; wanted one, it holds nothing"),
    "other arrays": (zipped(("w.npy", b"")), "it holds 'w.npy'"),
    "no array": (zipped(("policy_probs.npy", b"\x80\x04.")), "policy_probs is no .npy array"),
    "cut header": (npy(FLOATS[:20]), "policy_probs has the header"),
    "code in the header": (npy("__import__('os').system('touch marker')"), "policy_probs has the header"),
    "deep header": (npy("[" * 900), "policy_probs has the header"),
    "objects": (with_array(policy_probs=np.array([[None]])), "policy_probs has the type '|O'"),
    "complex": (npy(FLOATS.replace("f4", "c8")), "has the type '<c8'; wanted numbers or words"),
    "record": (npy(FLOATS.replace("'<f4'", "[('a', '<f4')]")), "has the type [('a'"),
    "one byte float": (npy(FLOATS.replace("f4", "f1")), "has the type '<f1'"),
    "negative size": (npy(FLOATS.replace("(2, 2)", "(2, -2)")), "has the shape (2, -2)"),
    "huge size": (npy(FLOATS.replace("(2, 2)", "(10**9,)")), "policy_probs has the header"),
    "other size": (npy(FLOATS, bytes(15)), "has 15 bytes of data for the shape (2, 2); it is damaged"),
    "columns": (npy(FLOATS.replace("False", "True"), bytes(16)), "numpy.ascontiguousarray"),
    "no text": (with_array(op_names=np.array([0x110000], dtype="<u4").view("<U1")), "words that are not text"),
    "flat": (with_array(policy_probs=PROBABILITIES[0]), "policy_probs has the shape (4,); wanted (layers, entries)"),
    "deep": (with_array(policy_probs=np.full((17, 4), 0.25)), "at most 16 layers"),
    "no distribution": (with_array(policy_probs=PROBABILITIES * 2), "policy_probs[0] is no distribution"),
    "words": (with_array(policy_probs=np.full((1, 4), "a")), "policy_probs[0] is no distribution"),
    "not finite": (with_array(policy_probs=np.full((1, 4), np.nan)), "policy_probs[0] is no distribution"),
    "one level": (with_array(l_mags=1), "l_mags is (1,); wanted the number of levels"),
    "half a level": (with_array(l_mags=2.5), "l_mags is (2.5,)"),
    "short ops": (with_array(ops=np.array([0])), "ops has 1 values, (0,); wanted 4 whole numbers"),
    "op too high": (with_array(ops=np.array([0, 1, 2, 3])), "one for each entry of policy_probs, from 0 to 2"),
    "level too high": (with_array(mags=np.array([0, 1, 2, 13])), "mags has 4 values"),
    "unknown op": (with_array(op_names=np.array(["Identity", "Warp", "RandFlip"])), "op_names: op is 'Warp', which"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED_NPZ.values(), ids=MALFORMED_NPZ.keys())
def test_a_malformed_npz_gives_one_line(
    content: bytes | Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    assert_one_line(path, said, monkeypatch)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    path.write_bytes(zipped(("policy_probs.npy", bytes(50_000_000))))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"policy_probs unpacks to more than 1,000,000 bytes"):
        read_policy(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


SEVEN = one_of(*(sequence(op("NoOp")) for _ in range(7)))
ANY = op("NoOp")
MALFORMED_JSON = {
    "a number": ("7", "policy.json is 7; wanted a policy of ours"),
    "another object": ('{"policies": []}', "or a list of (op, probability, level) rows"),
    "another format": ('{"format": "timm"}', "wanted a policy of ours (format: 'jointsearch-policy')"),
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
    "wide limits": (pipeline(turned(0, shift_limit_x=[-0.1, 0.1])), "shift_limit_x is [-0.1, 0.1]; wanted two equal"),
    "three limits": (pipeline(turned(0, shift_limit_x=[1, 1, 1])), "shift_limit_x is [1, 1, 1]"),
    "a limit of text": (pipeline(op("Solarize", threshold="high")), "threshold is 'high'; wanted two equal numbers"),
    "too many ways": (pipeline(*[SEVEN] * 7), "transform has more than 1,000 ways through it"),
    "too many stages": (pipeline(*[op("HorizontalFlip")] * 17), "at most 16 are allowed"),
    "a table with a typo": ('[[["Rotat", 0.5, 0.75]]]', "did you mean Rotate or Contrast?"),
}


@pytest.mark.parametrize(("content", "said"), MALFORMED_JSON.values(), ids=MALFORMED_JSON.keys())
def test_a_malformed_json_gives_one_line(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_one_line(written(tmp_path / "policy.json", content), said, monkeypatch)


def assert_one_line(path: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    start = time.process_time()
    with pytest.raises(InputError) as error:
        read_policy(path)
    assert time.process_time() - start < 1
    assert said in str(error.value)
    assert "policy" in str(error.value)
    assert "\n" not in str(error.value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


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


def test_numbers_of_every_kind_are_what_numpy_reads(tmp_path: Path) -> None:
    kinds = ("<f4", ">f8", "<f8", "|i1", ">i2", "<i4", ">i8", "|u1", "<u2", ">u4", "<u8", "<U3", ">U5")
    arrays = {f"a{n}": np.arange(6).reshape(2, 3).astype(kind) for n, kind in enumerate(kinds)}
    np.savez_compressed(tmp_path / "all.npz", **arrays)  # type: ignore[arg-type]
    for name, array in read_npz(tmp_path / "all.npz", tuple(arrays), "test").items():
        assert array.shape == (2, 3)
        assert list(array.values) == arrays[name].ravel().tolist()
