"""TANDA on data with a known answer, and as a command: beside its control, killed and resumed, with a user's op."""

import json
import math
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jointsearch.commands.command import run
from jointsearch.data.sets import Batch
from jointsearch.data.standard import Standard
from jointsearch.export.policy_torchvision import torchvision_policy
from jointsearch.networks.create import create_network
from jointsearch.runs.checkpoint import load_checkpoint
from jointsearch.searchers.tanda import Tanda, TandaSearcher
from search_spaces.augment import table
from search_spaces.augment.op import AugOp
from search_spaces.augment.table import OPS
from search_spaces.errors import InputError
from search_spaces.policy import Policy
from tests.forked import forkserver
from tests.kills import same, wait_for
from tests.scripts_bench import run_script
from tests.search_bench import moment

GENERATORS = ("mean_field", "lstm")
TOYS = (
    AugOp("Roll", lambda images, amount: images.roll(2, 3)),  # of textures that begin anywhere: unnoticeable
    AugOp("Fill", lambda images, amount: torch.full_like(images, 0.5)),
    AugOp("Stay", lambda images, amount: images),
    AugOp("Dim", lambda images, amount: images * 0.5),
)


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for op in TOYS:
        monkeypatch.setitem(OPS, op.name, op)
    yield
    table._op_tables.cache_clear()


def textures(noise: torch.Generator, count: int = 24) -> Batch:
    """Waves across 8x8 pixels which begin anywhere, so that a rolled image is as likely as the image."""
    angle = torch.arange(8) * math.tau / 8
    phase = torch.rand(count, 1, 1, generator=noise) * math.tau
    waves = torch.randint(-2, 3, (2, count, 1, 1), generator=noise)
    levels = 0.5 + 0.4 * torch.cos(waves[0] * angle.unsqueeze(1) + waves[1] * angle + phase)  # (B, 8, 8)
    pixels = levels.mul(255).round().to(torch.uint8).unsqueeze(1)
    return Batch(pixels, torch.zeros(count, dtype=torch.long), torch.arange(count))


def share_of(op: str, other: str, seed: int, **settings: Any) -> float:
    """How often the generator draws an op, after a short search among two."""
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    known = Tanda(ops=(op, other), length=3, **settings)
    searcher = TandaSearcher(known, create_network("tiny_cnn", 10, 1, 8), Standard(), noise, seed)
    for _ in range(80):
        searcher.step(textures(noise), [textures(noise)], moment())
    return searcher.found().facts[f"share/{op}"]


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_an_op_that_destroys_the_image_is_given_up_and_one_that_nobody_can_notice_is_kept(generator: str) -> None:
    shares = [share_of("Fill", "Roll", seed, generator=generator) for seed in range(5)]
    assert statistics.fmean(shares) < 0.1
    # The controls draw it as often as at the start.
    assert share_of("Fill", "Roll", 0, generator=generator, learning_rate=0.0) == pytest.approx(0.5)
    dealt = [share_of("Fill", "Roll", seed, generator=generator, shuffled=True) for seed in range(3)]
    assert 0.2 < statistics.fmean(dealt) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_changing_nothing_is_best_without_the_diversity_term_and_not_with_it(generator: str) -> None:
    without = [share_of("Stay", "Dim", seed, generator=generator, diversity_weight=0.0) for seed in range(3)]
    assert statistics.fmean(without) > 0.9
    # Beside an op as real as the identity the term decides; by its absence neither is preferred.
    by_default = [share_of("Stay", "Roll", seed, generator=generator) for seed in range(3)]
    assert statistics.fmean(by_default) < 0.2


WORDS = [
    *("search=policy", "searcher=tanda", "dataset=digits", "network=tiny_cnn", "seeds=[0]", "threads=1", "device=cpu"),
    *("searcher.length=3", "search_recipe.epochs=8", "search_recipe.batch_size=32"),
]
TRAINED = ["recipe.epochs=1", "controls=[none]"]
SEARCH = Path("out", "search-seed0")


def go(folder: str, *words: str) -> None:
    os.chdir(folder)
    os._exit(run("joint_search", [*WORDS, "run=out", *words]))


def outcome(folder: Path) -> dict[str, Any]:
    loaded = load_checkpoint(folder / SEARCH / "checkpoints")
    assert loaded is not None
    result = json.loads((folder / SEARCH / "result.json").read_text())
    files = {name: (folder / SEARCH / name).read_bytes() for name in ("policy.json", "metrics.jsonl")}
    state = {key: value for key, value in loaded.state.items() if key != "seconds"}
    del state["trainer"]["optimizer"]  # the loop's, which the search does not use
    return files | {"result": result | {"seconds": 0}, "state": state}


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_a_search_killed_on_its_way_ends_with_the_same_bits_and_its_control_with_others(
    generator: str, tmp_path: Path
) -> None:
    mine = ["retrain=false", f"searcher.generator={generator}", "searcher.learning_rate=0.05", "save_seconds=0"]
    jobs = {"straight": mine, "control": [*mine[:2], "searcher.learning_rate=0"], "killed": mine}
    children = {}
    for name, words in jobs.items():
        (tmp_path / name).mkdir()
        children[name] = forkserver().Process(target=go, args=(str(tmp_path / name), *words))
        children[name].start()
    wait_for(tmp_path / "killed" / SEARCH / "metrics.jsonl")
    children["killed"].kill()
    for child in children.values():
        child.join(120)
    assert children["killed"].exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / SEARCH / "result.json").exists()
    assert load_checkpoint(tmp_path / "killed" / SEARCH / "checkpoints") is not None
    again = forkserver().Process(target=go, args=(str(tmp_path / "killed"), *mine))
    again.start()
    again.join(120)
    assert [children["straight"].exitcode, children["control"].exitcode, again.exitcode] == [0, 0, 0]
    straight, control = outcome(tmp_path / "straight"), outcome(tmp_path / "control")
    assert same(outcome(tmp_path / "killed"), straight)
    assert straight["policy.json"] != control["policy.json"]
    functions = [result["result"]["effective_functions"] for result in (straight, control)]
    assert functions[0] < functions[1] == pytest.approx(27)  # the control is uniform still
    assert straight["result"]["forward_equivalents"] == control["result"]["forward_equivalents"] > 0


PLUGIN = '''"""An op of a user, in ten lines."""
import torch

from search_spaces import AugOp, register_op


def vignette(images, amount):
    y, x = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[-2:])
    return images * (1 - amount.view(-1, 1, 1, 1) * (x.square() + y.square().unsqueeze(1)) / 2)
register_op(AugOp("CornersOf", vignette, identity=0.0, strongest=0.8))
'''  # fmt: skip


@pytest.mark.slow
def test_an_op_of_ten_lines_is_searched_saved_trained_with_and_named_by_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    assert len(PLUGIN.splitlines()) == 10
    words = [*WORDS, *TRAINED, "search_recipe.epochs=2", "run=out", "plugins=[mine.py]"]
    try:
        assert run_script("joint_search", *words, "searcher.ops=[CornersOf,Invert]") == 0
        policy = Policy.load(SEARCH / "policy.json")
        assert [(row.ops[0].op, row.ops[0].magnitude) for row in policy.sub_policies] == [
            ("CornersOf", 0.25),
            ("CornersOf", 0.5),
            ("Invert", None),
        ]
        assert policy.draws == 3
        assert Policy.load("out/found/seed0/policy.json") == policy
        assert (SEARCH / "result.json").is_file()
        with pytest.raises(InputError, match="CornersOf has no counterpart in the other library; give leave_out=true"):
            torchvision_policy(policy)
        capsys.readouterr()
        export = ["export_policy", f"policy={SEARCH}/policy.json", "format=torchvision", "plugins=[mine.py]"]
        assert run_script(*export) == 2
        assert "CornersOf" in capsys.readouterr().err
        assert run_script(*export, "leave_out=true", "output=exported.py") == 0
        assert "CornersOf x2: left out" in capsys.readouterr().out
    finally:
        OPS.pop("CornersOf", None)
        table._op_tables.cache_clear()
