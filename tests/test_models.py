"""A trained network is used by timm alone; one that starts from weights has them before its first step."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jointsearch import Digits, Grid, NetworkSettings, Recipe, compose_study, create_network, load_network, run_grid
from jointsearch.data.datasets import Folder
from jointsearch.data.load import load_splits
from jointsearch.loops.grid import CellsSettings
from jointsearch.loops.start import normalized_as_weights, start_notes
from jointsearch.networks.create import adaptation
from jointsearch.search_kinds import PolicyOnly
from search_spaces.errors import InputError
from tests.conftest import REPOSITORY
from tests.scripts_bench import refusal, run_script

SHORT = Recipe(epochs=1, batch_size=50, precision="float32")
FEW = Digits(reduced=50, validation=0)
TRAINED = {
    "small images": {"network": "test_resnet"},
    "as it is": {"network": NetworkSettings("test_resnet", adapt=False)},
    "transformer": {"network": "test_vit"},
    "cells": {"network": "jointsearch_cells", "genotype": "DARTS_V2", "cells": CellsSettings(4, 3)},
    "ours": {"network": "tiny_cnn"},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_three_lines_give_the_trained_network(kind: str, tmp_path: Path) -> None:
    [result] = run_grid(Grid(("trivialaugment",), FEW, (0,), recipe=SHORT, **TRAINED[kind]), tmp_path)
    folder = tmp_path / "trivialaugment" / "seed0"
    told = json.loads((folder / "model.json").read_text())
    network = timm.create_model(told["architecture"], **told["model_args"])
    network.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), load_network(folder)(images))
    assert told["classes"] == list("0123456789")
    assert told["policy"] == json.loads((folder / "policy.json").read_text())
    assert told["test_scores"]["accuracy"] == result["test_accuracy_last"]
    assert (told["seed"], told["recipe"]["epochs"], "timm" in told["recipe"]) == (0, 1, False)
    if kind == "cells":
        assert told["genotype"] == json.loads((folder / "genotype.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("page", "run"), [("README.md", "mine"), ("docs/get_started.md", "photos_python")])
def test_the_lines_of_a_page_run_alone_in_a_new_process(page: str, run: str, tmp_path: Path) -> None:
    run_grid(Grid(("none",), FEW, (0,), "test_resnet", SHORT), tmp_path / "trained")
    shutil.copytree(tmp_path / "trained" / "none", tmp_path / "runs" / run / "found")
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    [block] = [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "load_file(" in one]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, check=True)


# --- small images: said, and with a switch ----------------------------------------------------------------------------


def test_what_is_adapted_is_said_and_how_to_switch_it_off() -> None:
    told = adaptation(NetworkSettings("resnet18"), 3, 32)
    assert told is not None
    assert told.startswith(
        "network=resnet18 is adapted to images of 32x32: conv1 is a fresh 3x3 convolution of stride 1,"
    )
    assert "maxpool is left out" in told
    assert "network.adapt=false" in told
    for unchanged in (NetworkSettings("resnet18", adapt=False), NetworkSettings("tiny_cnn")):
        assert adaptation(unchanged, 3, 32) is None
    assert adaptation(NetworkSettings("resnet18"), 3, 96) is None


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_without_adapting_the_weights_load_into_timms_own_class(name: str) -> None:
    own = create_network(NetworkSettings(name, adapt=False), 10, image_size=32)
    timm.create_model(name, num_classes=10).load_state_dict(own.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for conv1"):
        timm.create_model("resnet18", num_classes=10).load_state_dict(create_network("resnet18", 10).state_dict())


# --- weights ----------------------------------------------------------------------------------------------------------


def features(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.eval().forward_features(images)  # type: ignore[operator]


def file_of(network: nn.Module, path: Path) -> str:
    """A file as its name says: safetensors, what torch.save writes, or a checkpoint of timm's train.py."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if path.suffix == ".tar" else state, path)
    return str(path)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".bin", ".pth.tar"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "wide_resnet16_1"])
def test_fine_tuning_starts_from_the_features_of_a_file(name: str, ending: str, tmp_path: Path) -> None:
    before = create_network(name, 7, image_size=96)
    file = file_of(before, tmp_path / f"weights{ending}")
    network = create_network(NetworkSettings(name, weights=file), 3, image_size=96)
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(features(network, images), features(before, images))
    assert network(images).shape == (2, 3)


def test_a_file_of_as_many_classes_keeps_its_classifier(tmp_path: Path) -> None:
    before = create_network("tiny_cnn", 10)
    network = create_network(NetworkSettings("tiny_cnn", weights=file_of(before, tmp_path / "a.pth")), 10)
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_first_convolutions_are_adapted_to_other_channels_as_timm_does(before: int, after: int, tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=7, in_chans=before)
    file = file_of(source, tmp_path / "weights.pth")
    network = create_network(NetworkSettings("test_resnet", weights=file), 3, in_chans=after, image_size=96)
    gray = torch.rand(2, 1, 96, 96)
    expected = features(source, gray.expand(-1, before, -1, -1))
    torch.testing.assert_close(features(network, gray.expand(-1, after, -1, -1)), expected, atol=1e-4, rtol=1e-4)


def test_positions_of_a_transformer_are_resampled_for_other_sizes(tmp_path: Path) -> None:
    file = file_of(timm.create_model("test_vit", num_classes=7), tmp_path / "weights.pth")
    network = create_network(NetworkSettings("test_vit", weights=file), 3, image_size=96)
    expected = timm.create_model(
        "test_vit", img_size=96, num_classes=0, pretrained=True, pretrained_cfg_overlay={"file": file, "num_classes": 7}
    )
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(features(network, images), features(expected, images))


def test_weights_for_large_images_are_loaded_before_a_network_is_adapted(tmp_path: Path) -> None:
    before = timm.create_model("resnet18", num_classes=7)
    file = file_of(before, tmp_path / "weights.safetensors")
    found = create_network(NetworkSettings("resnet18", weights=file), 3, image_size=32).state_dict()
    fresh = {name for name, value in before.state_dict().items() if not torch.equal(value, found[name])}
    assert fresh == {"conv1.weight", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("kind", ["small images", "cells"])
def test_a_network_trained_here_starts_another_training(kind: str, tmp_path: Path) -> None:
    grid = Grid(("none",), FEW, (0,), recipe=SHORT, **TRAINED[kind])
    run_grid(grid, tmp_path)
    folder = tmp_path / "none" / "seed0"
    plan = grid.plan("none", 0, tmp_path, {})
    network = NetworkSettings(plan.network.name, weights=str(folder / "model.safetensors"))
    started = create_network(network, 3, 1, 8, options=plan.network_options)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(features(started, images), features(load_network(folder), images))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of another": (lambda path: file_of(timm.create_model("test_vit"), path), "not fit network=test_resnet .*Missing"),
    "part": (
        lambda path: torch.save({"conv1.0.weight": torch.zeros(16, 3, 3, 3)}, path), "does not fit .*Missing key"
    ),
    "more": (
        lambda path: torch.save(timm.create_model("test_resnet").state_dict() | {"odd.weight": torch.zeros(1)}, path),
        "does not fit .*Unexpected key.*odd.weight",
    ),
    "damaged": (lambda path: path.write_bytes(b"0123"), "cannot be read"),
    "no tensors": (lambda path: torch.save({"a": 3}, path), "holds other things than tensors"),
    "code": (lambda path: torch.save(nn.Linear(1, 1), path), "cannot be read .*weights_only"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_are_one_line(case: str, tmp_path: Path) -> None:
    write, message = REFUSED[case]
    write(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message) as error:
        create_network(NetworkSettings("test_resnet", weights=str(tmp_path / "weights.pth")), 3, image_size=96)
    assert "\n" not in str(error.value)


def test_what_cannot_start_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {
        ("network=wide_resnet16_1", "network.pretrained=true"): "timm publishes no weights for network=wide_resnet16_1",
        ("network=test_resnet", "network.weights=missing.pth"): "network.weights=missing.pth is no file of weights",
        ("network.weights=x.pth", "network=test_resnet", "network.pretrained=true"): "stands beside network.weights",
        ("network=test_resnet", "network.pretraind=true"): "did you mean network.pretrained",
    }
    for words, message in wrong.items():
        assert message in refusal(capsys, "retrain", *words, "policy=none", "controls=[]")


# --- published weights, from the folder that they were downloaded to --------------------------------------------------


def test_published_weights_come_from_the_folder_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "models--timm--test_resnet.r160_in1k"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "snapshots" / "abc").mkdir(parents=True)
    published = timm.create_model("test_resnet")
    file_of(published, hub / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    network = create_network(NetworkSettings("test_resnet", pretrained=True), 3, image_size=96)
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(features(network, images), features(published, images))
    shutil.rmtree(hub)
    with pytest.raises(
        InputError, match=r"download timm/test_resnet.r160_in1k elsewhere and use network\.weights=FILE"
    ):
        create_network(NetworkSettings("test_resnet", pretrained=True), 3, image_size=96)


# --- normalization ----------------------------------------------------------------------------------------------------


def test_images_are_normalized_as_those_that_the_weights_were_trained_on(tmp_path: Path) -> None:
    file = file_of(timm.create_model("test_efficientnet"), tmp_path / "weights.pth")
    network = NetworkSettings("test_efficientnet", weights=file)
    found = normalized_as_weights(Folder(), network).standard
    assert (found.mean, found.std, found.crop_padding) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 4)
    own = compose_study("search=policy", "dataset=folder", "dataset.standard.mean=[0.4]").dataset
    assert normalized_as_weights(own, network) == own
    assert normalized_as_weights(Folder(), NetworkSettings("test_efficientnet")) == Folder()
    gray = normalized_as_weights(Digits(), network).standard
    assert (gray.mean, gray.std) == (pytest.approx((0.449,)), pytest.approx((0.226,)))
    (tmp_path / "model.json").write_text(json.dumps({"mean": [0.1], "std": [0.2]}))
    assert normalized_as_weights(Folder(), network).standard.mean == (0.1,)


@pytest.mark.parametrize(("classes", "said"), [(10, "its last layer is kept"), (7, "its last layer is fresh")])
def test_what_becomes_of_the_last_layer_is_said(classes: int, said: str, tmp_path: Path) -> None:
    file = file_of(create_network("tiny_cnn", classes, 1), tmp_path / "weights.pth")
    data = Digits(reduced=100)
    [first, _] = start_notes(data, NetworkSettings("tiny_cnn", weights=file), load_splits(data, 0))
    assert said in first


# --- as words, and in settings.json -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("network=test_vit", "network.adapt=false"),
        ("network.adapt=false", "network=test_vit"),
        ("network.name=test_vit", "network.adapt=false"),
    ],
)
def test_settings_stand_beside_the_name_in_any_order(words: tuple[str, ...]) -> None:
    kind: Any = compose_study("search=policy", *words).search
    assert kind.network == NetworkSettings("test_vit", adapt=False)


def test_words_objects_and_dicts_say_the_same() -> None:
    wanted = compose_study("preset=faster_aa2020", "network.adapt=false")
    assert wanted == compose_study("preset=faster_aa2020", network={"adapt": False})
    assert wanted == compose_study("preset=faster_aa2020", network=NetworkSettings("wide_resnet40_2", adapt=False))
    assert PolicyOnly(network="tiny_cnn") == PolicyOnly(network=NetworkSettings("tiny_cnn"))
    assert compose_study("search=policy", network="tiny_cnn") == compose_study("search=policy", "network=tiny_cnn")


def test_settings_json_names_weights_by_their_content_and_says_nothing_of_a_plain_network(tmp_path: Path) -> None:
    file = file_of(create_network("tiny_cnn", 10, 1), tmp_path / "weights.pth")
    shutil.copy(file, tmp_path / "other.pth")
    identities = [
        NetworkSettings("tiny_cnn", weights=str(tmp_path / name)).identity() for name in ("weights.pth", "other.pth")
    ]
    assert identities[0] == identities[1]
    assert list(identities[0]) == ["weights"]
    assert NetworkSettings("tiny_cnn").identity() == {}
    assert NetworkSettings("tiny_cnn", pretrained=True, adapt=False).identity() == {"adapt": False, "pretrained": True}
    words = ["policy=none", "controls=[]", "seeds=[0]", "recipe.epochs=1", "dataset.reduced=50", "device=cpu"]
    out, plain = f"run={tmp_path}/tuned", f"run={tmp_path}/plain"
    assert run_script("retrain", *words, "network=tiny_cnn", f"network.weights={file}", out) == 0
    assert run_script("retrain", *words, "network=tiny_cnn", plain) == 0
    settings = [json.loads((tmp_path / name / "none/seed0/settings.json").read_text()) for name in ("tuned", "plain")]
    assert (settings[0]["network"], settings[0]["network_settings"]) == ("tiny_cnn", identities[0])
    assert settings[1]["network"] == "tiny_cnn"
    assert "network_settings" not in settings[1]
    assert "timm" not in settings[1]["recipe"]
    assert run_script("retrain", *words, "network.weights=null", out) == 2  # a run does not lose its weights


def test_a_policy_is_searched_and_trained_on_a_network_that_starts_from_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(create_network("test_resnet", 5, 1, 8), tmp_path / "weights.safetensors")
    words = ["search=policy", "searcher=random", "dataset.reduced=60", "seeds=[0]", "controls=[none]", "device=cpu"]
    epochs = ["recipe.epochs=1", "search_recipe.epochs=1", "search_recipe.batch_size=30", "recipe.precision=float32"]
    start = ["network=test_resnet", f"network.weights={file}"]
    assert run_script("joint_search", *words, *epochs, *start, f"run={tmp_path}/out") == 0
    printed = capsys.readouterr().out
    assert "network test_resnet from weights.safetensors" in printed
    assert "network=test_resnet is adapted to images of 8x8" in printed
    assert "Images are normalized by mean [0.5] and std [0.5], as those that its weights were trained on" in printed
    for part in ("search-seed0", "found/seed0", "none/seed0"):
        settings = json.loads((tmp_path / "out" / part / "settings.json").read_text())
        assert settings["network_settings"].keys() == {"weights"}
        assert settings["dataset"]["standard"]["mean"] == [0.5]
