"""What presets set on a data set is what their papers, or the code of these, have there."""

import pytest

from jointsearch.commands import retrain
from jointsearch.compose import compose_study, compose_words
from jointsearch.compose.files import content, offered, yaml_of
from jointsearch.loops.recipe import Recipe
from jointsearch.registry import CONFIGS, built_in
from jointsearch.search_kinds import CellsAlone, OneAfterTheOther, PolicyOnly
from jointsearch.settings import build


def of_retrain(*words: str) -> retrain.Settings:
    return build(retrain.Settings, compose_words("retrain", words).values)


# Of DADA: batch, weight decay, network, images and classes of the search, cutout.
DADA = {
    "cifar10": (128, 2e-4, "wide_resnet40_2", 4000, None, 16),
    "cifar100": (32, 5e-4, "wide_resnet40_2", 4000, None, 16),
    "svhn": (32, 1e-3, "wide_resnet28_10", 1000, None, 20),
    "imagenet": (32, 1e-4, "resnet50", 6000, 120, 0),
}


@pytest.mark.parametrize("name", DADA)
def test_dada_searches_each_data_set_as_its_paper_does(name: str) -> None:
    study = compose_study("preset=dada2020_relax", f"dataset={name}")
    search, recipe = study.search, study.search.search_recipe
    assert isinstance(search, PolicyOnly)
    found = recipe.batch_size, recipe.weight_decay, search.network.name, search.policy_images, search.policy_classes
    assert (*found, study.dataset.standard.cutout) == DADA[name]
    assert recipe.epochs == 20
    assert study.dataset.standard.flip
    assert study.dataset.reduced is None  # the trainings have all images


@pytest.mark.parametrize(
    ("name", "base"),
    [("cifar10", (0.1, 128)), ("cifar100", (0.1, 128)), ("svhn", (0.01, 256)), ("imagenet", (0.01, 256))],
)
def test_dadas_learning_rate_follows_the_linear_rule(name: str, base: tuple[float, int]) -> None:
    recipe = compose_study("preset=dada2020_relax", f"dataset={name}").search.search_recipe
    assert recipe.learning_rate == pytest.approx(base[0] * recipe.batch_size / base[1])


# Of the trainings: network, epochs, batch, learning rate, weight decay, cutout, and whether the cosine falls.
TRAININGS = {
    "cifar10": ("wide_resnet40_2", 200, 512, 0.4, 2e-4, 16, "cosine"),
    "cifar100": ("wide_resnet40_2", 200, 512, 0.4, 2e-4, 16, "cosine"),
    "svhn": ("wide_resnet28_10", 200, 512, 0.04, 5e-4, 20, "cosine"),
    "imagenet": ("resnet50", 270, 512, 0.2, 1e-4, 0, "multistep"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_fast_autoaugment_trains_each_data_set_as_its_code_does(name: str) -> None:
    grid = of_retrain("preset=fast_autoaugment2019", f"dataset={name}", "policy=none")
    recipe, standard = grid.recipe, grid.dataset.standard
    assert isinstance(recipe, Recipe)
    numbers = recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay, standard.cutout
    assert (grid.network.name, *numbers, recipe.schedule_name) == TRAININGS[name]
    assert standard.flip
    assert getattr(grid.dataset, "extra", None) == {"svhn": True}.get(name)


@pytest.mark.parametrize("preset", ["kashima2021", "separate2021"])
def test_kashima_mirrors_svhn_too_and_nothing_that_was_not_asked_for(preset: str) -> None:
    flips = {
        name: compose_study(f"preset={preset}", f"dataset={name}").dataset.standard.flip
        for name in ("cifar10", "svhn", "digits")
    }
    assert flips == {"cifar10": True, "svhn": True, "digits": False}
    assert not compose_study("dataset=svhn").dataset.standard.flip


def test_ohl_has_a_recipe_for_imagenet() -> None:
    study = compose_study("preset=ohl2019", "dataset=imagenet", "dataset.validation=0")
    recipe, searcher = study.recipe, study.search.searcher
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == (150, 2048, 0.8, 1e-4)
    assert (recipe.warmup.epochs, recipe.optimizer, searcher.trajectories) == (2, "sgd", 4)
    assert round(1_281_167 / searcher.folds, -3) == 49_000  # the paper holds out 50,000
    assert study.search.network.name == "resnet50"


def test_ohl_has_a_recipe_for_amoebanet() -> None:
    words = ["recipe.learning_rate=0.024", "recipe.warmup.epochs=40", "recipe.warmup.start=0.2083"]
    text = " ".join(yaml_of("preset=ohl2019").read_text().replace("\n#  ", "").split())
    assert all(word in text for word in words)
    recipe = compose_study("preset=ohl2019", "dataset=cifar10", *words).recipe
    assert recipe.warmup.epochs == 40
    assert recipe.learning_rate * recipe.warmup.start == pytest.approx(0.005, rel=1e-3)


def test_what_is_typed_counts_more_than_what_a_paper_does_on_a_data_set() -> None:
    words = ["network=tiny_cnn", "search_recipe.learning_rate=0.3", "policy_images=null", "dataset.standard.flip=false"]
    study = compose_study("preset=dada2020_relax", "dataset=svhn", *words)
    assert (study.search.network.name, study.search.search_recipe.learning_rate) == ("tiny_cnn", 0.3)
    assert (study.search.policy_images, study.dataset.standard.flip) == (None, False)


def test_what_a_preset_sets_on_a_data_set_is_known_to_be_the_presets() -> None:
    brought = [
        compose_words("joint_search", ["preset=dada2020_relax", f"dataset={name}"]).brought["preset=dada2020_relax"]
        for name in ("cifar10", "imagenet")
    ]
    assert brought[1] - brought[0] == {"policy_classes"}


def test_every_file_of_a_preset_on_a_data_set_is_of_one_that_is_there_and_changes_something() -> None:
    presets = built_in("preset")
    files = [path for path in sorted((CONFIGS / "specialized").glob("*.yaml")) if "20" in path.stem]
    assert len(files) >= 8
    for path in files:
        preset, _, dataset = path.stem.rpartition("_")
        assert preset in presets
        assert dataset in built_in("dataset")
        assert content(path) != content(yaml_of(f"preset={preset}"))


# Experiments: the tables of papers


def test_table_6_of_dada_searches_some_or_all_and_trains_on_all() -> None:
    some, every = (compose_study("experiment=dada2020_table6", *words) for words in ([], ["policy_images=null"]))
    assert (some.search.policy_images, every.search.policy_images) == (4000, None)
    for study in (some, every):
        assert (study.dataset.name, study.dataset.reduced, study.dataset.validation) == ("cifar10", None, 0)
        assert study.search.searcher == compose_study("preset=dada2020_relax", "dataset=cifar10").search.searcher
    trained = of_retrain("preset=fast_autoaugment2019", "dataset=cifar10", "policy=none").recipe
    assert some.recipe == trained


KINDS = {"kashima2021": None, "separate2021": OneAfterTheOther, "darts2019_first": CellsAlone}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("preset", KINDS)
def test_the_table_of_kashima_has_every_method_on_every_data_set(preset: str, dataset: str) -> None:
    words = ["experiment=kashima2021_table", f"preset={preset}", f"dataset={dataset}"]
    for epochs in (25, 50):
        study = compose_study(*words, *(["search_recipe.epochs=50"] if epochs == 50 else []))
        search, recipe = study.search, study.recipe
        assert (search.search_recipe.epochs, recipe.epochs, recipe.batch_size) == (epochs, 600, 96)
        assert (study.dataset.name, study.dataset.validation, study.dataset.standard.flip) == (dataset, 0, True)
        assert (search.supernet.channels, search.supernet.layers, search.cells.channels, search.cells.layers) == (
            16,
            8,
            36,
            20,
        )
        assert (study.controls, study.seeds) == ((), (0, 1, 2))
        assert KINDS[preset] is None or isinstance(search, KINDS[preset])
        if isinstance(search, OneAfterTheOther):
            assert (search.policy_images, search.policy_epochs, search.network.name) == (4000, 20, "wide_resnet40_2")


def test_the_experiments_of_papers_are_offered() -> None:
    assert {"dada2020_table6", "kashima2021_table"} <= set(offered("experiment", "joint_search"))
