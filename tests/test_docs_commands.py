"""Every command of the README and the docs is carried out on small data: pytest --long tests/test_docs_commands.py.

A page is read from top to bottom in a folder of its own, which holds what a reader is said to have. A command is typed
as it stands, and behind it what makes it short: few images, one epoch, small networks.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import yaml
from huggingface_hub import constants

from jointsearch.commands import benchmark
from jointsearch.commands.command import run
from jointsearch.compose import CONFIGS
from jointsearch.searchers.race import Race
from search_spaces.controls import named_policy
from tests.object_files import IMAGES, coco_document, photo, write_coco, write_voc
from tests.test_data_hf import write as write_parquet
from tests.test_docs import PAGES, PLUGIN, REPOSITORY, TEXTS, commands, commands_of_methods, python_blocks, words_of
from tests.test_models import file_of
from tests.test_my_photos import draw_photos
from tests.wandb_loopback import Loopback

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Carried out by tests with a stand-in: jobs of the launcher without SLURM in test_sweeps.py, test_wandb_runs.py.
ELSEWHERE = ("launcher=submitit_slurm", "wandb:ENTITY")
PUT_IN = {"RUN": "runs/photos", "FOLDER": "runs/photos", "PHOTOS": "photos"}  # what a reader writes for a word

# What makes a command short, one after the other; what a command refuses is left out.
TRAINING = ["threads=1", "device=cpu", "recipe.epochs=1", "recipe.batch_size=20", "recipe.evaluate_every=1"]
SIZES = ["cells.channels=4", "cells.layers=3", "supernet.channels=4", "supernet.layers=3", "recipe.auxiliary_weight=0"]
SEARCH = ["search_recipe.batch_size=20", "search_recipe.epochs=2"]
# Of searches by whole trainings.
FEW = (["searcher.trainings=4"], ["searcher.trials=2"], ["searcher.folds=2"], ["searcher.members=4"])
FEW_MORE = (["searcher.trajectories=2"], ["searcher.counts=[1]", "searcher.levels=[5,15]"], ["searcher.at_once=2"])
TRIALS = ["search_recipe.epochs=4", "searcher.measurements=2", "searcher.trial_steps=1"]
PROPOSED = ["proposals=[trials]", "search_recipe.epochs=3"]  # of a race
SHORTENING = (
    *(["seeds=[0]"], TRAINING, ["recipe.warmup=null", *TRAINING], *([word] for word in SIZES)),
    *(["network=test_resnet"], *([word] for word in SEARCH), TRIALS, PROPOSED, ["policy_epochs=2"], *FEW, *FEW_MORE),
    *(["dataset.validation=20"], ["dataset.reduced=60"], ["detector.channels=32"], ["dataset.shorter=64"]),
    ["rounds=1", "batch_size=8", "network=wide_resnet16_1", "seeds=1"],  # of benchmark
)
# Where one of these is written, the setting stays as it is.
KEPT = {
    "network": ("network=my_network", "genotype=DARTS_V2"),
    "dataset.reduced": ("dataset=cifar100", "dataset=coco", "dataset=bccd"),  # cifar100 needs some of each class
}


def typed(page: Path) -> list[str]:
    """The commands of a page that have a word at least; the name of a command alone is a name."""
    return [line for line in commands(page) if line.startswith("python") or len(line.split()) > 2]


# my_photos has a test of its own.
WITH_COMMANDS = [page for page in PAGES if typed(page) and page.stem != "my_photos"]


def put_in(word: str) -> str:
    name, equals, value = word.rpartition("=")
    return name + equals + PUT_IN.get(value, value)


def shortened(module: str, words: list[str]) -> list[str]:
    """The words of a command, and behind them those that make it short."""
    if module not in ("joint_search", "retrain", "detect", "benchmark") or words == ["run=runs/photos"]:
        return words
    if any(word.startswith("experiment=") for word in words):  # needs a place of the data
        words = [*words, "dataset.path=photos", "dataset.test_path=photos", "dataset.image_size=32"]
    later = [f"search_recipe.epochs={int(word.split('=')[1]) + 1}" for word in words if "from_epoch=" in word]
    for more in [*SHORTENING, later]:
        names = {word.split("=")[0] for word in more}
        if names & {"cells.channels", "cells.layers"} and module == "retrain" and "genotype=DARTS_V2" not in words:
            continue
        if not any(name in names and set(theirs) & set(words) for name, theirs in KEPT.items()):
            words = [*words, *more] if run(module, [*words, *more, "--cfg", "job"]) == 0 else words
    return words


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages say a reader has: photos, data sets, weights, a policy, a plugin and runs."""
    folder = tmp_path_factory.mktemp("given")
    draw_photos(folder / "photos", 40)
    write_coco(folder / "coco2017")
    write_cifar(folder / "data")
    write_parquet(folder / "parquet_files" / "train.parquet", 120)
    (folder / "photos_with_boxes" / "images").mkdir(parents=True)
    for number, name in enumerate(IMAGES):
        (folder / f"photos_with_boxes/images/{name}.png").write_bytes(photo(number))
    (folder / "photos_with_boxes" / "export.json").write_text(json.dumps(coco_document(IMAGES)))
    lists = folder / "bccd" / "ImageSets" / "Main"
    write_voc(lists.parents[1])
    for name, image in (("train", "one\ntwo"), ("val", "three")):
        (lists / f"{name}.txt").write_text(image)
    with tarfile.open(folder / "bccd_voc.tar", "w") as archive:
        archive.add(folder / "bccd", "bccd")
    network = timm.create_model("test_resnet")
    file_of(network, folder / "resnet50.pth")
    hub = folder / "hub" / "models--timm--test_resnet.r160_in1k"
    for place in (hub / "refs", hub / "snapshots" / "abc"):
        place.mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    file_of(network, hub / "snapshots" / "abc" / "model.safetensors")
    named_policy("trivialaugment").save(folder / "policy.json")
    [plugin] = [block for page in PAGES for block in python_blocks(page) if PLUGIN in block]
    (folder / "my_parts.py").write_text(plugin)
    write_sweeps(folder)
    words = ["search=policy", "searcher=differentiable", "dataset=folder", f"dataset.path={folder}/photos"]
    words = shortened("joint_search", [*words, "dataset.image_size=32", f"run={folder}/runs/photos"])
    assert run("joint_search", words) == 0
    for name in ("digits", "mine"):
        shutil.copytree(folder / "runs" / "photos", folder / "runs" / name)
    return folder


def write_cifar(folder: Path) -> None:
    """Noise in the binary form of CIFAR-10 and CIFAR-100, which has a byte of a coarse label first."""
    noise, of_10 = np.random.default_rng(0), [f"cifar10/data_batch_{number}" for number in range(1, 6)]
    for name in (*of_10, "cifar10/test_batch", "cifar100/train", "cifar100/test"):
        first, classes, count = (bytes(1), 100, 500) if "100" in name else (b"", 10, 100)
        rows = (first + bytes([label % classes]) + noise.bytes(3072) for label in range(count))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    for name, count in (("cifar10/batches.meta", 10), ("cifar100/fine_label_names", 100)):
        (folder / f"{name}.txt").write_text("\n".join(f"class_{label}" for label in range(count)))


def write_sweeps(folder: Path) -> None:
    """The sweeps of this project, one of them also found by its path, and that of the page about sweeps; all short."""
    name = Path("configs", "sweep", "joint_vs_separate.yaml")
    (folder / "jointsearch" / name.parent).mkdir(parents=True)
    ours = (CONFIGS / name.relative_to("configs")).read_text()
    for file in ("joint_vs_separate", f"jointsearch/{name}"):
        write_sweep(folder / file, ours, *TRAINING, *SIZES, *SEARCH, "dataset=digits")
    for file in ("ohl_rate", "ohl_trajectories", "adversarial_ablation", "adversarial_copies"):
        text = (CONFIGS / "sweep" / f"{file}.yaml").read_text()
        more = ["network=tiny_cnn", "dataset=digits", "recipe.epochs=1"]
        more += ["searcher.folds=2"] if file.startswith("ohl") else []
        write_sweep(folder / file, text, *TRAINING, *more)
    text = (CONFIGS / "sweep" / "kashima2021_table.yaml").read_text()
    write_sweep(folder / "kashima2021_table", text, *TRAINING, *SIZES, *SEARCH, "dataset=digits", "preset=kashima2021")
    [yours] = re.findall(r"```yaml\n(.*?)```", TEXTS[REPOSITORY / "docs" / "sweeps.md"], re.DOTALL)
    write_sweep(folder / "sweep.yaml", yours, "budget=0.02", "network=tiny_cnn", "threads=1", "device=cpu")


def write_sweep(path: Path, text: str, *words: str) -> None:
    """A sweep of few images and one seed, with more words."""
    sweep = yaml.safe_load(text)
    values = dict(word.split("=") for word in (*words, "seeds='[0]'", "dataset.reduced=60"))
    sweep["parameters"] |= {name: {"value": yaml.safe_load(value)} for name, value in values.items()}
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))


@pytest.fixture
def workplace(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what a reader has; published weights were downloaded before; benchmarks have one row."""
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for table in ("SEARCHES", "CELL_SEARCHES", "PLANTED", "PLANTED_CELLS", "LEVERS", "SHAPES"):
        rows = getattr(benchmark, table)
        monkeypatch.setattr(benchmark, table, dict(list(rows.items())[:1]))
    monkeypatch.setattr(benchmark, "Race", partial(Race, trainings=4, untuned=("none", "trivialaugment"), family=False))
    monkeypatch.setattr(benchmark, "STEPS", 2)
    monkeypatch.setattr(benchmark, "CELL_STEPS", 2)
    return tmp_path


def carry_out(command: str) -> None:
    """Carry out a command of a page; it ends well."""
    module, words = words_of(command)
    asks = command.endswith("--help")  # and is carried out as it stands; words_of adds it to every command
    words = words if asks else shortened(module, [put_in(word) for word in words if word != "--help"])
    if "wandb=online" in words:
        with Loopback() as server:
            typed_words = [sys.executable, "-m", "jointsearch", "search", *words]
            subprocess.run(typed_words, check=True, env=server.environment)
            assert len(server.runs) == 1
    else:
        assert run(module, words) == 0, command


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.name)
def test_the_commands_of_a_page_do_what_they_say(page: Path, workplace: Path) -> None:
    if page.stem == "detection":
        (workplace / "photos").rename("photos_by_class")
        (workplace / "photos_with_boxes").rename("photos")
    if page.stem == "get_started":
        shutil.rmtree("runs/photos")  # the page makes it
    for command in typed(page):
        if not any(word in command for word in ELSEWHERE):
            carry_out(command)


@pytest.mark.parametrize("command", sorted(set(commands_of_methods())))
def test_a_command_of_the_tables_of_methods_ends_well(command: str, workplace: Path) -> None:
    carry_out(command)
