"""The command that trains detectors: what it learns, which backbones it takes, and what is left for use."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jointsearch import (
    Backbone,
    Coco,
    DetectionGrid,
    DFine,
    FasterRcnn,
    Grid,
    Recipe,
    RetinaNet,
    Standard,
    backbones_of,
    load_detector,
    load_network,
    run_grid,
)
from jointsearch.data.datasets import Digits, Shapes
from jointsearch.data.object_load import LoadedObjects
from jointsearch.data.objects import Objects, Padded
from jointsearch.data.standard import normalized
from jointsearch.metrics.coco import AveragePrecision
from jointsearch.networks.features import FeatureMaps
from jointsearch.networks.trained import read_description
from jointsearch.objectives.detection import Detection
from search_spaces.controls import named_policy
from search_spaces.errors import InputError
from tests.object_files import write_coco
from tests.scripts_bench import run_script

QUICK = ("seeds=[0]", "threads=1", "detector.channels=32", "device=cpu", "recipe.precision=float32")
SHORT = (*QUICK, "dataset.reduced=8", "recipe.epochs=1")


SLOWER = ("faster_rcnn", "mask_rcnn")
LEARNERS = {
    "retinanet": "recipe.learning_rate=3e-3",
    "faster_rcnn": "detector.regions=32",
    "mask_rcnn": "detector.regions=32",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of classifiers on color images: two rows, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = Recipe(epochs=1, batch_size=40, precision="float32")
    run_grid(Grid(("none", "trivialaugment"), Shapes(reduced=80), (0, 4), "tiny_cnn", recipe), folder)
    return folder


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def figures(folder: Path) -> dict[str, float]:
    told = result(folder)
    return {"AP": told["test_AP_last"], **told["test_scores_last"]}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a detector that was trained from scratch for some seconds, once for all that ask."""

    @cache
    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        words = (f"run={made}", f"detector={name}", "network=tiny_cnn", "dataset.reduced=200")
        assert run_script("detect", *QUICK, *words, "recipe.epochs=3", LEARNERS[name]) == 0
        return made

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", *(pytest.param(name, marks=pytest.mark.long) for name in SLOWER)])
def test_shapes_are_found_from_scratch_in_seconds(name: str, learned: Callable[[str], Path]) -> None:
    found = figures(learned(name) / "scratch/seed0")
    assert found["AP50"] > 50
    if name == "mask_rcnn":
        assert found["mask_AP50"] > 50
    assert {f"AP/{polarity}_{letter}" for polarity in ("bright", "dark") for letter in "LJSZ"} < set(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", pytest.param("mask_rcnn", marks=pytest.mark.long)])
def test_a_loaded_detector_finds_what_was_measured(name: str, learned: Callable[[str], Path]) -> None:
    folder = learned(name) / "scratch/seed0"
    detector = load_detector(folder)
    settings = Shapes(reduced=200)
    test = LoadedObjects(settings, masks=name == "mask_rcnn").splits(0).test
    metric = AveragePrecision(torch.device("cpu"))
    for batch in test.batches(torch.arange(len(test)), 8):
        with torch.no_grad():
            metric.update(detector(normalized(batch.images, settings.standard)), batch.labels)
    again, measured = metric.compute(), figures(folder)
    assert again["AP"] == pytest.approx(measured["AP"], abs=0.01)
    assert again.get("mask_AP50") == pytest.approx(measured.get("mask_AP50"), abs=0.01)
    with pytest.raises(InputError, match="holds a detector; read it with load_detector"):
        load_network(folder)


@pytest.mark.slow
def test_predict_writes_boxes_and_pictures(
    learned: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = LoadedObjects(Shapes(), masks=False).splits(0).test
    (tmp_path / "photos/inner").mkdir(parents=True)
    (tmp_path / "photos/torn.png").write_bytes(b"no image")
    for row, name in enumerate(("a.png", "inner/b.png")):
        Image.fromarray(drawn.source.read(row).pixels.permute(1, 2, 0).numpy()).save(tmp_path / "photos" / name)
    words = (f"run={learned('retinanet')}", f"images={tmp_path / 'photos'}", f"out={tmp_path / 'out'}")
    assert run_script("predict", *words, "least_score=0.3", "device=cpu") == 0
    assert "Left out: torn.png is not recognized" in capsys.readouterr().out
    told = json.loads((tmp_path / "out/boxes.json").read_text())
    assert [image["file_name"] for image in told["images"]] == ["a.png", "inner/b.png"]
    assert told["categories"][0]["name"] == "bright_L"
    assert told["annotations"]
    for one in told["annotations"]:
        x, y, w, h = one["bbox"]
        assert 0 <= x <= x + w <= 64.01
        assert 0 <= y <= y + h <= 64.01
        assert one["score"] >= 0.3
    pictures = sorted((tmp_path / "out/drawn").iterdir())
    assert [path.name for path in pictures] == ["000001_a.jpg", "000002_b.jpg"]
    assert np.asarray(Image.open(pictures[0])).shape == (192, 192, 3)  # enlarged, so that the words can be read


def test_predict_writes_classes_of_a_classifier(trained: Path, tmp_path: Path) -> None:
    photo = tmp_path / "x.png"
    Image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(photo)
    folder = trained / "none/seed0"
    assert run_script("predict", f"run={folder}", f"images={photo}", f"out={tmp_path}", "device=cpu") == 0
    [row] = csv.DictReader((tmp_path / "classes.csv").read_text().splitlines())
    assert row["image"] == "x.png"
    assert row["class"] in read_description(folder)["classes"]
    assert 1 / 8 <= float(row["probability"]) <= 1


PREDICT_WRONG = {
    "nothing": ((), "predict needs run= and images="),
    "no training": (("run={tmp}", "images={tmp}"), "holds no trained network; give the folder of a training"),
    "no images": (("run={run}", "images={tmp}"), "holds no image; give a folder with .jpg"),
    "no folder": (("run={run}", "images={tmp}/none"), "does not exist"),
}


@pytest.mark.parametrize("case", PREDICT_WRONG)
def test_predict_says_what_is_missing(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, told = PREDICT_WRONG[case]
    filled = [word.format(tmp=tmp_path, run=trained) for word in words]
    assert run_script("predict", *filled) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_networks_of_a_run_become_backbones_beside_a_fresh_one(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("detect", *SHORT, f"run={trained}", "seeds=[4]") == 0
    folder = trained / "detection/retinanet_shapes"
    printed = capsys.readouterr().out
    assert "Training retinanet on none, trivialaugment, scratch x 1 seeds" in printed
    told = {row: json.loads((folder / row / "seed4/settings.json").read_text()) for row in ("none", "scratch")}
    form = told["scratch"]["backbone"].removesuffix(", fresh")
    assert form.startswith("tiny_cnn of form ")
    assert told["none"]["backbone"].startswith(f"{form}, weights ")
    assert told["none"]["detector"]["channels"] == 32
    for row in ("none", "trivialaugment", "scratch"):
        assert f"| {row} |" in printed
    page = (folder / "report.html").read_text()
    assert "What was detected" in page
    assert "Precision and recall at IoU 0.50" in page
    assert run_script("detect", *SHORT, f"run={trained}", "seeds=[4]") == 0  # finished: read, not trained again


def test_weights_are_taken_over_without_a_missing_or_unexpected_key(trained: Path) -> None:
    backbone = Backbone.of(trained / "trivialaugment/seed0")
    network, trained_one = backbone.build(), load_network(trained / "trivialaugment/seed0")
    assert network.state_dict().keys() == trained_one.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained_one.state_dict().items())
    torch.manual_seed(1)
    backbone.build()
    after_weights = torch.rand(1)
    torch.manual_seed(1)
    backbone.refreshed().build()
    assert torch.equal(after_weights, torch.rand(1))  # so that heads begin alike with weights and without


WRONG = {
    "unknown row": (
        ("run={run}", "backbones=[best]"),
        "backbones names best, which holds no trained network; {run} has none, ",
    ),
    "no run": (("run={tmp}", "backbones=[best]"), "run=FOLDER names a run with trained networks"),
    "seed": (("run={run}", "seeds=[7]"), "none has no network of seed 7; set seeds to those it has"),
    "classes only": (("dataset=cifar10",), "dataset=cifar10 is not for scripts/detect.py; use it with"),
    "unknown detector": (("detector=retina",), "detector=retina is not known; did you mean retinanet"),
    "masks": (("detector.masks=true",), "detector.masks is not a setting of detector=RetinaNet"),
    "mixing": (("recipe.mixing.mixup=0.2",), "recipe.mixing is for classifiers; leave it out"),
    "smoothing": (("recipe.label_smoothing=0.1",), "recipe.label_smoothing is for classifiers; leave it out"),
    "erasing": (("recipe.timm.reprob=0.2",), "recipe.timm.reprob is for classifiers; leave it out"),
    "policy": (("policies=[auto]",), "auto"),
    "network": (("network=resnet81",), "network=resnet81 is not known; did you mean"),
    "no maps": (("network=tiny_mlp",), "gives no feature maps; choose one that gives maps"),
    "crop": (("dataset.standard.crop_padding=4",), "crop_padding is 4, and would hide objects that stay marked"),
    "place": (("dataset=coco",), "dataset=coco needs a place; set dataset.path to its folder or archive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_nothing_is_written(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, told = WRONG[case]
    filled = [word.format(tmp=tmp_path / "run", run=trained) for word in words]
    place = [] if any(word.startswith("run=") for word in filled) else [f"run={tmp_path / 'run'}"]
    assert (
        run_script(
            "detect", *[word for word in SHORT if not word.startswith("seeds") or case != "seed"], *filled, *place
        )
        == 2
    )
    printed = capsys.readouterr()
    assert told.format(run=trained) in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_backbone_for_gray_images_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(epochs=1, batch_size=60, precision="float32")
    run_grid(Grid(("none",), Digits(reduced=60), (0,), "tiny_cnn", recipe), tmp_path)
    assert run_script("detect", *SHORT, f"run={tmp_path}") == 2
    assert "takes images of 1 channel(s), and a detector sees 3; train the backbone on color" in capsys.readouterr().err


@pytest.mark.slow
def test_a_policy_on_the_detectors_own_images_is_a_row_of_its_own(tmp_path: Path) -> None:
    words = ("policies=[none,trivialaugment]", "network=tiny_cnn", f"run={tmp_path}", "recipe.epochs=2")
    assert run_script("detect", *SHORT, *words) == 0
    plain, moved = (read_losses(tmp_path / row / "seed0") for row in ("scratch", "scratch+trivialaugment"))
    assert len(plain) == len(moved) == 2
    assert plain != moved
    assert "| scratch+trivialaugment |" in (tmp_path / "summary.md").read_text()
    assert "minus scratch" in (tmp_path / "summary.md").read_text()


def read_losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record["train_loss"] for record in records if "train_loss" in record]


def test_scratch_alone_is_the_network_of_the_run(trained: Path) -> None:
    assert backbones_of(trained, ["scratch"])["scratch"][4].told["network"] == "tiny_cnn"
    assert tuple(backbones_of(trained)) == ("none", "trivialaugment", "scratch")
    assert tuple(backbones_of(trained, [f"{trained}/none/"], [4])["none"]) == (4,)


def test_rows_of_one_name_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "none", tmp_path / "none")
    with pytest.raises(InputError, match="backbones names two rows none; rename the folder of one"):
        backbones_of(None, [str(trained / "none"), str(tmp_path / "none")])


def test_backbones_differ_by_form_and_weights_and_bring_their_normalization(trained: Path) -> None:
    names = [Backbone.fresh("resnet18", size).identity() for size in (32, 224)]
    rows = backbones_of(trained, None, [0])
    names += [row[0].identity() for row in rows.values()]
    assert len(set(names)) == 5
    standard = Standard(flip=True, mean=(0.1,), std=(0.2,))
    assert rows["none"][0].standard(standard) == replace(Shapes().standard, flip=True)
    assert Backbone.fresh("resnet18").standard(standard) == standard


def test_a_random_policy_and_a_searched_one_belong_to_their_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        named_policy("random", None, seed).save(tmp_path / f"{seed}.json")
    names = ("random", f"{tmp_path}/{{seed}}.json")
    fresh = {seed: Backbone.fresh("tiny_cnn") for seed in (0, 1)}
    grid = DetectionGrid({"scratch": fresh}, Shapes(), RetinaNet(), Recipe(), names)
    for row in grid.policies:
        plans = [grid.plan(row, seed, tmp_path, {}) for seed in (0, 1)]
        assert plans[0].policy != plans[1].policy
        assert plans[1].policy == named_policy("random", None, 1)


def test_how_images_are_read_does_not_decide_a_result(tmp_path: Path) -> None:
    fresh = {0: Backbone.fresh("tiny_cnn")}
    path = write_coco(tmp_path)
    told = []
    for workers, in_memory in ((0, "never"), (2, "always")):
        dataset = Coco(path=str(path), shorter=None, workers=workers, in_memory=in_memory)
        grid = DetectionGrid({"scratch": fresh}, dataset, RetinaNet(), Recipe())
        told.append(grid.plan("scratch", 0, tmp_path, {}).identity(LoadedObjects(dataset, masks=False).splits(0)))
    assert told[0] == told[1]


@pytest.mark.slow
def test_coordinates_stay_exact_where_the_backbone_runs_in_bf16() -> None:
    torch.manual_seed(0)
    maps = FeatureMaps(Backbone.fresh("tiny_cnn").build())
    images = Padded(torch.rand(1, 3, 96, 1100), torch.tensor([[96, 1100]]))
    for settings in (RetinaNet(channels=8), FasterRcnn(channels=8)):
        detector = settings.build(maps, 2, 96).eval()
        seen: list[torch.dtype] = []
        maps.network.stage1.register_forward_hook(lambda part, given, made, seen=seen: seen.append(made.dtype))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            [found] = detector(images)
        assert seen[0] == torch.bfloat16
        assert found["boxes"].dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "tiny_cnn"])
def test_d_fine_takes_images_of_any_size(network: str) -> None:
    torch.manual_seed(0)
    maps = FeatureMaps(Backbone.fresh(network, 224 if network == "resnet18" else 32).build())
    detector = DFine(channels=16, queries=10, decoder_layers=2).build(maps, 2, 96)
    images = Padded(torch.rand(2, 3, 75, 101), torch.tensor([[75, 101], [60, 90]]))
    boxes = torch.tensor([[[10.0, 10.0, 40.0, 50.0]]] * 2)
    labels = Objects(boxes, torch.zeros(2, 1, dtype=torch.int64), images.sizes, None, (), ("a", "b"))
    assert torch.isfinite(Detection().loss(detector.train(), images, labels))
    with torch.no_grad():
        found = detector.eval()(images)
    assert len(found) == 2
