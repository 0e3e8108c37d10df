"""Properties of single exports: the generated file, the script, Albumentations' JSON, timm's weights, kornia."""

import ast
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from jointsearch.export.policy_albumentations import QUIET, albumentations_json, albumentations_policy
from jointsearch.export.policy_kornia import SignedOperation, kornia_auto_augment
from jointsearch.export.policy_timm import WEIGHTS, timm_auto_augment
from jointsearch.export.policy_torchvision import torchvision_policy
from search_spaces.augment.erase import FILL
from search_spaces.controls import named_policy, random_policy
from search_spaces.errors import InputError
from search_spaces.policy import OpChoice, Policy, SubPolicy
from search_spaces.schedule import PolicySchedule
from tests.export_bench import SINGLE, kornia_drawn, module_of
from tests.scripts_bench import run_script

POLICY = random_policy(SINGLE, 0)
GENERATED = torchvision_policy(POLICY).value
ODD_NAMES = (
    '"""', '"""\\nimport os', "'; raise SystemExit #", "\\", '\\"', "{x} %s", "a\"b'c", "# fmt: on", "数 é 🦊", "]"
)  # fmt: skip

# --- the generated file -----------------------------------------------------------------------------------------------

ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("search_spaces", "jointsearch", "kornia", "timm"):
            raise ImportError(f"{name} is not allowed here")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, ".")
import torch
from policy_torchvision import NAME, PolicyTransform
from torchvision.transforms import v2

generator = torch.Generator().manual_seed(3)
image = torch.randint(0, 256, (3, 12, 16), generator=generator, dtype=torch.uint8)
changed = [PolicyTransform()(image, generator=generator) for _ in range(20)]
assert v2.Compose([PolicyTransform(), v2.ToDtype(torch.float32, scale=True)])(image).shape == (3, 12, 16)
print(NAME, torch.stack(changed).sum().item())
"""


@pytest.mark.slow
def test_the_generated_file_runs_where_nothing_of_ours_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "policy_torchvision.py").write_text(GENERATED, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    noise = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (3, 12, 16), generator=noise, dtype=torch.uint8)
    transform = module_of(GENERATED).PolicyTransform()
    total = torch.stack([transform(image, generator=noise) for _ in range(20)]).sum().item()
    assert done.stdout.split() == [POLICY.name, str(total)]


def test_generated_files_are_formatted_and_clean(tmp_path: Path) -> None:
    for number, policy in enumerate((POLICY, named_policy("none"), named_policy("trivialaugment"))):
        (tmp_path / f"policy_{number}.py").write_text(torchvision_policy(policy).value, encoding="utf-8")
    for command in (["check"], ["format", "--check", "--line-length", "120"]):
        line = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(tmp_path)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_data_of_the_generated_file_and_never_code(name: str) -> None:
    def parsed(name: str) -> tuple[str, str]:
        tree = ast.parse(torchvision_policy(Policy(POLICY.sub_policies, name)).value)
        (node,) = (
            node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAME"
        )
        assert isinstance(node.value, ast.Constant)
        found, node.value = node.value.value, ast.Constant("")
        return found, ast.dump(tree)

    found, rest = parsed(name)
    assert found == name
    assert rest == parsed("policy")[1]


def test_the_table_of_the_generated_file_is_the_policy() -> None:
    rows = (
        SubPolicy((OpChoice("Rotate", 0.25, 0.5), OpChoice("Invert", 0.75)), weight=3.0),
        SubPolicy((OpChoice("Contrast", 1.0, 1.0), OpChoice("Posterize", 0.5, 0.5), OpChoice("Cutout", 0.1, 0.5))),
        SubPolicy(),
        SubPolicy((OpChoice("Equalize"),), weight=0.0),
    )
    assert module_of(torchvision_policy(Policy(rows)).value).SUB_POLICIES == [
        (3.0, [("Rotate", 0.25, [15.0, -15.0]), ("Invert", 0.75, [])]),
        (1.0, [("Contrast", 1.0, [1.9, 0.1]), ("Posterize", 0.5, [6]), ("Cutout", 0.1, [0.1])]),
        (1.0, []),
    ]


def test_every_kind_of_image_comes_back_as_its_own_kind_with_the_same_pixels(images: Tensor) -> None:
    apply_ops = module_of(GENERATED).apply_ops
    ops = [("Rotate", 13.0), ("Contrast", 1.4), ("Cutout", (0.2, 0.4, 0.5))]
    floating = apply_ops(images[0], ops)
    levels = apply_ops(images[0].mul(255).round().byte(), ops)
    assert levels.dtype == torch.uint8
    assert torch.equal(levels, floating.mul(255).round().byte())
    picture = apply_ops(tv.to_pil_image(images[0].mul(255).round().byte()), ops)
    assert isinstance(picture, PIL.Image.Image)
    assert torch.equal(tv.pil_to_tensor(picture), levels)
    assert apply_ops(PIL.Image.new("L", (9, 7)), ops).mode == "L"
    half = apply_ops(images[0].half(), ops)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), floating, rtol=0, atol=0.004)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 8, 8), "one image at a time"),
        (torch.zeros(4, 8, 8), "1 or 3"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "torch.uint8"),
        (PIL.Image.new("RGBA", (8, 8)), "convert"),
    ],
    ids=["batch", "channels", "type", "mode"],
)
def test_an_image_of_another_kind_is_refused_with_a_remedy(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_of(GENERATED).PolicyTransform()(image)


def test_draws_repeat_under_a_generator_and_under_the_global_seed(images: Tensor) -> None:
    transform = module_of(GENERATED).PolicyTransform()

    def drawn(generator: torch.Generator | None) -> Tensor:
        return torch.stack([transform(images[0], generator=generator) for _ in range(10)])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = drawn(None)
        state = torch.get_rng_state()
        given = drawn(torch.Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, given)
        assert not torch.equal(first, drawn(None))


# --- the script -------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    return run_script("export_policy", *arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    POLICY.save("policy.json")
    return tmp_path


def test_the_script_writes_the_file_and_prints_what_is_approximated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert (folder / "policy_torchvision.py").read_text(encoding="utf-8") == GENERATED
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "policy_torchvision.py"
    assert printed[1:] == [f"approximated: {line}" for line in torchvision_policy(POLICY).approximations]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=timm"], "policy_timm import timm_auto_augment"),
        (["format=kornia"], "policy_kornia import kornia_auto_augment"),
        (["format=onnx"], "wanted one of torchvision"),
        (["policy=missing.json"], "missing.json is not there"),
        (["policy=schedule.json"], "each span of epochs"),
        (["policy=pairing.json"], "leave_out=true"),
        (["output=nowhere/out.py"], "cannot be written"),
        (["output=policy.json"], "overwrite=true"),
        (["output=taken", "overwrite=true"], "another file"),
        (["outptu=out.py"], "did you mean output"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gives_one_line_and_exit_code_2_and_writes_nothing(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PolicySchedule(((0, POLICY),)).save("schedule.json")
    Policy((SubPolicy((OpChoice("SamplePairing", 0.5, 0.5),)),)).save("pairing.json")
    (folder / "taken").mkdir()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert run(*arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_script_overwrites_and_leaves_out_only_when_told_to(folder: Path) -> None:
    Policy((SubPolicy((OpChoice("SamplePairing", 0.5, 0.5),)),)).save("pairing.json")
    (folder / "out.py").write_text("kept")
    assert run("policy=pairing.json", "output=out.py", "leave_out=true") == 2
    assert (folder / "out.py").read_text() == "kept"
    assert run("policy=pairing.json", "output=out.py", "leave_out=true", "overwrite=true") == 0
    assert "PolicyTransform" in (folder / "out.py").read_text()
    assert {path.name for path in folder.iterdir()} == {"policy.json", "pairing.json", "out.py"}


# --- Albumentations ---------------------------------------------------------------------------------------------------


@pytest.fixture
def albumentations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv(QUIET, "1")
    reason = "albumentations is not installed; pip install 'jointsearch[export]'"
    return pytest.importorskip("albumentations", reason=reason)


def test_the_json_file_loads_as_the_same_pipeline(folder: Path, albumentations: ModuleType, images: Tensor) -> None:
    assert run("format=albumentations") == 0
    path = folder / "policy_albumentations.json"
    assert path.read_text(encoding="utf-8") == albumentations_json(POLICY).value
    loaded, made = albumentations.load(path), albumentations_policy(POLICY).value
    array = images[0].mul(255).byte().permute(1, 2, 0).numpy()
    for pipeline in (loaded, made):
        pipeline.set_random_state(np.random.default_rng(0), random.Random(0))
    for _ in range(40):
        assert (loaded(image=array)["image"] == made(image=array)["image"]).all()
    shares = [branch["p"] for branch in json.loads(path.read_text())["transform"]["transforms"][0]["transforms"]]
    assert shares == pytest.approx([1 / 25] * 25)


def test_the_hole_of_albumentations_has_the_size_and_color_of_ours(albumentations: ModuleType) -> None:
    policy = Policy((SubPolicy((OpChoice("Cutout", 1.0, 1.0),)),))
    array = np.full((40, 40, 3), 255, dtype=np.uint8)
    changed = albumentations_policy(policy).value(image=array)["image"]
    rows, columns = (changed != 255).any(-1).nonzero()
    assert len(rows) == 8 * 8  # a fifth of 40
    assert changed[rows[0], columns[0]].tolist() == [round(255 * value) for value in FILL]
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (7, 7)


def test_without_albumentations_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jointsearch\[export\]'"):
        albumentations_json(POLICY)


# --- timm and kornia --------------------------------------------------------------------------------------------------


def test_timm_repeats_sub_policies_in_proportion_to_their_weights() -> None:
    def repeats(*weights: float) -> tuple[list[int], tuple[str, ...]]:
        ops = ("Invert", "Equalize", "AutoContrast")
        rows = tuple(SubPolicy((OpChoice(op),), weight) for op, weight in zip(ops, weights, strict=False))
        exported = timm_auto_augment(Policy(rows))
        names = [entry[0].name for entry in exported.value.policy]
        return [names.count(op) for op in ops[: len(weights)]], exported.approximations

    assert repeats(1.0, 3.0, 2.0)[0] == [1, 3, 2]
    assert repeats(0.1, 0.3)[0] == [1, 3]
    assert repeats(31.0, 62.0)[0] == [1, 2]
    assert repeats(5.0, 0.0, 5.0)[0] == [1, 0, 1]
    counts, lines = repeats(2**0.5, 1.0)
    assert counts[0] / counts[1] == pytest.approx(2**0.5, rel=1e-4)
    assert any(WEIGHTS in line for line in lines)
    assert len(timm_auto_augment(named_policy("trivialaugment")).value.policy) == 434  # 14 x 31 levels


def test_every_image_of_a_kornia_batch_has_its_own_draw(images: Tensor) -> None:
    changed = kornia_drawn(kornia_auto_augment(random_policy(SINGLE, 0)).value, images[0], 64)
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 25


def test_a_kornia_module_neither_learns_nor_hides_its_directions() -> None:
    module = kornia_auto_augment(random_policy(SINGLE, 0)).value
    directed = [child for child in module.modules() if isinstance(child, SignedOperation)]
    assert directed
    assert not module(torch.rand(4, 3, 8, 8)).requires_grad
