"""A small CycleGAN: shapes, its losses, a training that recolors digits, its file, and CLAMP with it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from jointsearch.commands.command import run
from jointsearch.data.datasets import Digits
from jointsearch.data.group_datasets import ColoredDigits
from jointsearch.data.load import Loaded
from jointsearch.loops import translate
from jointsearch.loops.by_group import Clamp
from jointsearch.loops.recipe import Recipe
from jointsearch.loops.translate import TranslatorRecipe, distance, train_translator
from jointsearch.networks.cyclegan import Discriminator, Generator, Translator, load_translator
from search_spaces.errors import InputError

CPU = torch.device("cpu")
SPLITS = Loaded(ColoredDigits(correlation=0.7)).splits(0)


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 16), (3, 32)])
def test_shapes_forward_and_gradients_backward(halves: bool, channels: int, side: int) -> None:
    images = torch.rand(2, channels, side, side, requires_grad=True)
    generator, judge = Generator(channels, 4, halves), Discriminator(channels, 4)
    made = generator(images)
    assert made.shape == images.shape
    assert made.abs().max() <= 1
    assert judge(made).shape == (2, 1, side // 4, side // 4)
    judge(made).sum().backward()
    for parameter in [images, *judge.parameters()]:
        assert parameter.grad is not None
    # A bias before instance normalization cannot change anything.
    moved = [name for name, one in generator.named_parameters() if one.grad is not None and one.grad.abs().max() > 1e-6]
    assert len([name for name in moved if name.endswith("weight")]) == len(
        [name for name, _ in generator.named_parameters() if name.endswith("weight")]
    )


class Plus(nn.Module):
    """A generator of one number."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(start))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.shift


def test_generators_descend_the_losses_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    # Generator a adds 1, b adds -3; judges give the mean of an image. On images of 0: into a 1, back -2, kept 1; into
    # b -3, back -2, kept -3. (1-1)^2 + (-3-1)^2, cycles 2 + 2, kept 1 + 3.
    pair = translate._Pair([Plus(1.0), Plus(-3.0)], 1, TranslatorRecipe(width=2))
    pair.judges = [lambda images: images.mean((1, 2, 3)), lambda images: images.mean((1, 2, 3))]  # type: ignore[list-item]
    seen: list[float] = []
    monkeypatch.setattr(translate, "_take_step", lambda optimizer, loss: seen.append(float(loss.detach())))
    images = [torch.zeros(5, 1, 2, 2), torch.zeros(5, 1, 2, 2)]
    made = pair._generate(images)
    assert seen == [pytest.approx(0 + 16 + 10 * (2 + 2) + 5 * (1 + 3))]
    pair._judge(images, made)
    # Real ones, 0, should be 1; those made, 1 and -3, should be 0.
    assert seen[1] == pytest.approx((1 + 1) / 2 + (1 + 9) / 2)


def test_images_go_to_the_generator_of_their_class_and_of_the_wanted_attribute() -> None:
    made = Translator(("x", "y"), ("a", "b"), 1, 2)
    # Generator 2 * class + attribute gives the constant (number + 1) / 4, from -1 to 1.
    for number in range(4):
        made.generators[number] = Constant(2 * (number + 1) / 4 - 1)
    images, groups = torch.zeros(4, 1, 2, 2), torch.tensor([0, 3, 1, 2])
    assert made(images, groups, 0)[:, 0, 0, 0].tolist() == [0.25, 0.75, 0.25, 0.75]
    assert made(images, groups, 1)[:, 0, 0, 0].tolist() == [0.5, 1.0, 0.5, 1.0]
    assert images.abs().max() == 0


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images, self.value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator that the command has trained for two steps."""
    path = tmp_path_factory.mktemp("translator") / "two_steps.safetensors"
    assert run("translator", ["steps=2", "width=2", "device=cpu", f"out={path}"]) == 0
    return path


def test_a_file_gives_back_the_same_translator_and_is_not_overwritten(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    made = train_translator(Loaded(ColoredDigits()).splits(0).train, TranslatorRecipe(steps=2, width=2), 0, CPU)
    images, groups = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    assert torch.equal(made(images, groups, 1), load_translator(file)(images, groups, 1))
    assert run("translator", ["steps=2", f"out={file}"]) == 2
    assert "is already there; give overwrite=true" in capsys.readouterr().err


def header(**changes: Any) -> bytes:
    told = {"format": "jointsearch-translator", "classes": ["x"], "attributes": ["a", "b"], "channels": 1, "width": 2}
    return safetensors.torch.save({}, {"translator": json.dumps({**told, "halves": False, **changes})})


BAD = {
    "missing": None,
    "damaged": b"xyz",
    "another file": safetensors.torch.save({"a": torch.zeros(1)}),
    "without weights": header(),
    "too wide": header(width=10**9),
    "other format": header(format="policy"),
    "no names": header(classes=3),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_translator_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    if BAD[name] is not None:
        path.write_bytes(BAD[name])
    with pytest.raises(InputError, match=r"cannot be used as a translator .*scripts/translator\.py") as refused:
        Clamp(translator=str(path))(Recipe())
    assert "\n" not in str(refused.value)


def test_a_translator_of_other_images_is_refused(file: Path) -> None:
    objective = Clamp(translator=str(file))(Recipe())
    objective.begin(SPLITS.train, ColoredDigits().standard)
    train = Loaded(ColoredDigits()).splits(0).train
    with pytest.raises(InputError, match="with classes even, odd, and these have odd, even; train one"):
        objective.begin(replace(train, classes=("odd", "even")), ColoredDigits().standard)
    with pytest.raises(InputError, match="with channels 3, and these have 1"):
        objective.begin(replace(train, images=train.images[:, :1]), ColoredDigits().standard)


def test_clamp_trains_with_a_translator_and_its_settings_name_the_content(file: Path, tmp_path: Path) -> None:
    words = ["dataset=colored_digits", "policy=none", "controls=[]", "network=tiny_cnn", "seeds=[0]", "device=cpu"]
    words += ["recipe.epochs=1", "objective=clamp", f"objective.translator={file}", f"run={tmp_path / 'run'}"]
    assert run("retrain", words) == 0
    told = json.loads((tmp_path / "run/none/seed0/settings.json").read_text())["objective"]["translator"]
    assert len(told) == 16
    assert "/" not in told
    assert json.loads((tmp_path / "run/none/seed0/result.json").read_text())["forward_equivalents"] == 9 * 13


@pytest.mark.slow
def test_a_short_training_brings_digits_closer_to_the_other_color() -> None:
    made = train_translator(SPLITS.train, TranslatorRecipe(steps=70, width=8), 0, CPU)
    told = distance(made, SPLITS.validation)
    # Of 0.202 are left 0.078 after so many steps (Xeon).
    assert told["translated"] < 0.7 * told["left as they are"]


def test_what_a_cyclegan_cannot_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="these images have no groups; choose another data set"):
        train_translator(Loaded(Digits()).splits(0).train, TranslatorRecipe(1), 0, CPU)
    with pytest.raises(InputError, match="group even/green has 0 training images, and a CycleGAN needs 2"):
        train_translator(Loaded(ColoredDigits(correlation=1.0)).splits(0).train, TranslatorRecipe(1), 0, CPU)
