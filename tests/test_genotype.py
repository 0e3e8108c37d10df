"""A genotype is a value: reading gives back what was written, as JSON and as DARTS's text."""

import json
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from search_spaces.cells.derive import derive
from search_spaces.cells.space import CELL_SPACES
from search_spaces.errors import InputError
from search_spaces.genotype import PUBLISHED, Edge, Genotype, resolve_genotype

Theirs = namedtuple("Theirs", "normal normal_concat reduce reduce_concat")  # as DARTS's own

# DARTS_V2 as DARTS prints it at the end of a search, edges written out by hand.
SEP, SKIP, MAX = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
V2_NORMAL = [(SEP, 0), (SEP, 1), (SEP, 0), (SEP, 1), (SEP, 1), (SKIP, 0), (SKIP, 0), ("dil_conv_3x3", 2)]
V2_REDUCE = [(MAX, 0), (MAX, 1), (SKIP, 2), (MAX, 1), (MAX, 0), (SKIP, 2), (SKIP, 2), (MAX, 1)]
V2_TEXT = repr(Theirs(V2_NORMAL, range(2, 6), V2_REDUCE, range(2, 6))).replace("Theirs", "Genotype")


def random_genotypes() -> list[Genotype]:
    noise = torch.Generator().manual_seed(4)
    sizes = [(space, (len(space.edges), len(space.ops))) for space in CELL_SPACES.values() for _ in range(5)]
    return [derive(space, *torch.rand(2, *size, generator=noise), name=space.name) for space, size in sizes]


EVERY = [*PUBLISHED.values(), *random_genotypes()]


@pytest.mark.parametrize("genotype", EVERY, ids=lambda genotype: genotype.name)
def test_json_gives_the_genotype_back(genotype: Genotype, tmp_path: Path) -> None:
    genotype.save(tmp_path / "genotype.json")
    read = Genotype.load(tmp_path / "genotype.json")
    assert read == genotype
    assert read.name == genotype.name
    assert read.to_json() == genotype.to_json()


@pytest.mark.parametrize("genotype", EVERY, ids=lambda genotype: genotype.name)
def test_darts_text_gives_the_genotype_back(genotype: Genotype) -> None:
    assert Genotype.from_darts(genotype.to_darts()) == genotype


def test_the_json_says_all_in_plain_words() -> None:
    data = json.loads(PUBLISHED["DARTS_V2"].to_json())
    assert data["format"] == "jointsearch-genotype"
    assert [(e["op"], e["source"]) for node in data["normal"] for e in node] == V2_NORMAL
    assert [(e["op"], e["source"]) for node in data["reduction"] for e in node] == V2_REDUCE


def test_the_darts_text_is_the_one_that_darts_prints() -> None:
    assert PUBLISHED["DARTS_V2"].to_darts() == V2_TEXT
    assert Genotype.from_darts(V2_TEXT) == PUBLISHED["DARTS_V2"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (V2_TEXT.replace("range(2, 6)", "[2, 3, 4, 5]"), "genotype"),
        (f"FOUND = {V2_TEXT}", "FOUND"),
        (f"\n  genotypes.FOUND = genotypes.{V2_TEXT}\n", "FOUND"),
        (f"Genotype({V2_NORMAL}, range(2, 6), {V2_REDUCE}, range(2, 6))", "genotype"),
        (
            f"Genotype({V2_NORMAL}, reduce_concat=(2, 3, 4, 5), normal_concat=[2, 3, 4, 5], reduce={V2_REDUCE})",
            "genotype",
        ),
        (V2_TEXT.replace("),", "),\n   # a comment\n"), "genotype"),
    ],
)
def test_darts_text_is_read_in_all_its_spellings(text: str, name: str) -> None:
    genotype = Genotype.from_darts(text)
    assert genotype == PUBLISHED["DARTS_V2"]
    assert genotype.name == name


SHORT = {"s": "sep_conv_", "d": "dil_conv_", "m": "max_pool_", "a": "avg_pool_"}
# Written down a second time, short: op, kernel, source; k is skip_connect.
DRAWN = {
    "DARTS_V1": ("s31 s30 k0 s31 k0 s31 s30 k2", "m30 m31 k2 m30 m30 k2 k2 a30"),
    "DARTS_V2": ("s30 s31 s30 s31 s31 k0 k0 d32", "m30 m31 k2 m31 m30 k2 k2 m31"),
    "PC_DARTS_CIFAR": ("s31 k0 s30 d31 s50 s31 a30 d31", "s51 m30 s51 s52 s30 s33 s31 s32"),
    "PC_DARTS_IMAGENET": ("k1 s30 s30 k1 s31 s33 s31 d54", "s30 k1 d52 m31 s32 s31 s50 s33"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_genotype_has_the_edges_of_its_paper(name: str) -> None:
    def edge(short: str) -> Edge:
        return Edge("skip_connect" if short[0] == "k" else f"{SHORT[short[0]]}{short[1]}x{short[1]}", int(short[-1]))

    for nodes, drawn in zip(PUBLISHED[name].cells.values(), DRAWN[name], strict=True):
        assert [e for node in nodes for e in node] == [edge(short) for short in drawn.split()]


def test_the_published_genotypes_are_four_different_ones_of_the_darts_space() -> None:
    assert list(PUBLISHED) == ["DARTS_V1", "DARTS_V2", "PC_DARTS_CIFAR", "PC_DARTS_IMAGENET"]
    assert len(set(PUBLISHED.values())) == 4
    used = {
        edge.op for genotype in PUBLISHED.values() for nodes in genotype.cells.values() for e in nodes for edge in e
    }
    assert used <= set(CELL_SPACES["darts"].choices)


def test_two_genotypes_are_equal_when_their_cells_are() -> None:
    known = PUBLISHED["DARTS_V2"]
    other = Genotype(known.reduction, known.normal, known.name)
    renamed = Genotype(known.normal, known.reduction, "other")
    assert renamed == known
    assert hash(renamed) == hash(known)
    assert other != known


def test_a_genotype_is_found_by_value_by_published_name_and_by_file(tmp_path: Path) -> None:
    known = PUBLISHED["PC_DARTS_IMAGENET"]
    known.save(tmp_path / "genotype.json")
    (tmp_path / "genotype.txt").write_text(known.to_darts())
    for given in (known, "PC_DARTS_IMAGENET", tmp_path / "genotype.json", str(tmp_path / "genotype.txt")):
        assert resolve_genotype(given) == known


@pytest.mark.parametrize("given", ["DARTS_V3", "darts_v2", "runs", "", "."])
def test_a_name_that_is_no_genotype_gives_one_line_with_a_remedy(given: str) -> None:
    with pytest.raises(InputError, match=r"DARTS_V2|give the path") as error:
        resolve_genotype(given)
    assert "\n" not in str(error.value)


PAIR = (Edge(SEP, 0), Edge(SKIP, 1))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Edge("none", 0), "op is 'none'"),
        (lambda: Edge("sep_conv_33", 0), "did you mean sep_conv_3x3"),
        (lambda: Edge(3, 0), "op is 3"),
        (lambda: Edge(SEP, -1), "source is -1"),
        (lambda: Edge(SEP, True), "source is True"),
        (lambda: Edge(SEP, 1.0), "source is 1.0"),
        (lambda: Genotype((), ()), "number of nodes of normal is 0"),
        (lambda: Genotype((PAIR,) * 17, (PAIR,) * 17), "number of nodes of normal is 17"),
        (lambda: Genotype((PAIR,), (PAIR, PAIR)), "normal has 1 nodes and reduction 2; give both"),
        (lambda: Genotype([PAIR], (PAIR,)), "normal is not a tuple of nodes; write"),
        (lambda: Genotype(([*PAIR],), (PAIR,)), "normal is not a tuple of nodes; write"),
        (lambda: Genotype((PAIR,), (PAIR[:1],)), "reduction[0] has 1 edges; wanted two"),
        (lambda: Genotype(((SEP, 0),), (PAIR,)), "normal[0] has 2 edges; wanted two, (Edge"),
        (lambda: Genotype((PAIR,), ((Edge(SEP, 0), Edge(SEP, 2)),)), "choose a source from 0 to 1"),
        (
            lambda: Genotype((PAIR, (Edge(SEP, 1), Edge(SEP, 1))), (PAIR, PAIR)),
            "normal[1] reads source 1 twice; choose",
        ),
        (lambda: Genotype((PAIR,), (PAIR,), ""), "name is ''"),
    ],
)
def test_a_wrong_value_cannot_be_built(build: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError) as error:
        build()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
