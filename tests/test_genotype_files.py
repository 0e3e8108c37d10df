"""Any genotype file gives a genotype, or a one-line error with file, place and remedy."""

import json
import time
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.genotype import Genotype

FIRST, SECOND = {"op": "sep_conv_3x3", "source": 0}, {"op": "skip_connect", "source": 1}


def file_with(**changes: object) -> str:
    data = {"format": "jointsearch-genotype", "version": 1, "normal": [[FIRST, SECOND]], "reduction": [[FIRST, SECOND]]}
    return json.dumps({key: value for key, value in {**data, **changes}.items() if value is not ...})


def edge(**changes: object) -> str:
    entry = {key: value for key, value in {**FIRST, **changes}.items() if value is not ...}
    return file_with(reduction=[[SECOND, entry]])


def second_node(*sources: int) -> str:
    node = [{"op": "sep_conv_3x3", "source": source} for source in sources]
    return file_with(normal=[[FIRST, SECOND], node], reduction=[[FIRST, SECOND], [FIRST, SECOND]])


HERE = "reduction[0][1]"
MALFORMED_JSON = {
    "empty": ("", "not valid JSON at line 1, column 1"),
    "darts text": ("Genotype(normal=[])", "not valid JSON"),
    "half a file": (file_with()[:-9], "not valid JSON"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "not UTF-8 text"),
    "a list": ("[]", "wanted an object"),
    "no format": (file_with(format=...), "format is None"),
    "a policy": (file_with(format="jointsearch-policy"), "DARTS's form is read from a .txt file"),
    "no version": (file_with(version=...), "version is None"),
    "later version": (file_with(version=2), "this code reads version 1, update"),
    "version true": (file_with(version=True), "version is True"),
    "unknown key": (file_with(reduce=[]), "did you mean reduction"),
    "name a number": (file_with(name=3), "name is 3"),
    "no normal": (file_with(normal=...), "normal is None"),
    "no reduction": (file_with(reduction=...), "reduction is None"),
    "normal empty": (file_with(normal=[]), "number of nodes of normal is 0"),
    "normal an object": (file_with(normal={}), "normal is {}"),
    "seventeen nodes": (file_with(normal=[[FIRST, SECOND]] * 17), "wanted a whole number from 1 to 16"),
    "a node more": (file_with(normal=[[FIRST, SECOND]] * 2), "normal has 2 nodes and reduction 1"),
    "node an object": (file_with(normal=[{}]), "normal[0] is {}"),
    "node of one edge": (file_with(normal=[[FIRST]]), "wanted a list of two edges"),
    "node of three edges": (file_with(normal=[[FIRST, SECOND, FIRST]]), "wanted a list of two edges"),
    "edge a text": (file_with(normal=[["sep_conv_3x3", 0]]), "normal[0][0] is 'sep_conv_3x3'"),
    "op missing": (edge(op=...), f"{HERE} has the keys ['source']; give op and source"),
    "source missing": (edge(source=...), f"{HERE} has the keys ['op']; give op and source"),
    "op with a typo": (edge(op="sep_conv_33"), "did you mean sep_conv_3x3"),
    "op none": (edge(op="none"), f"{HERE}: op is 'none'"),
    "op code": (edge(op="__import__('os').system('touch marker')"), f"{HERE}: op is"),
    "op a list": (edge(op=["none"]), f"{HERE}: op is ['none']"),
    "weight of an edge": (edge(weight=1), f"{HERE} has the unknown key 'weight'"),
    "source a text": (edge(source="0"), f"{HERE}: source is '0'"),
    "source negative": (edge(source=-1), f"{HERE}: source is -1"),
    "source true": (edge(source=True), f"{HERE}: source is True"),
    "source a half": (edge(source=0.5), f"{HERE}: source is 0.5"),
    "source null": (edge(source=None), f"{HERE}: source is None"),
    "a node that reads itself": (second_node(0, 3), "normal[1] reads source 3, which is not computed before it"),
    "a node that reads a later one": (second_node(4, 0), "choose a source from 0 to 2"),
    "a source of 30 digits": (second_node(0, 10**29), "choose a source from 0 to 2"),
    "a source twice": (second_node(2, 2), "normal[1] reads source 2 twice; choose two different sources"),
    "a key twice": (file_with().replace('"version"', '"version": 1, "version"'), "'version' twice"),
    "many nodes": (file_with(normal=[0] * 200_000), "normal[0] is 0"),
    "nested 100,000 deep": ("[" * 100_000 + "]" * 100_000, "nested deeper than"),
}

EDGES = "[('sep_conv_3x3', 0), ('skip_connect', 1)]"


def darts(normal: str = EDGES, concat: str = "range(2, 3)") -> str:
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={EDGES}, reduce_concat=[2])"


MALFORMED_DARTS = {
    "empty": ("", "not one Genotype(...)"),
    "json": (file_with(), "not one Genotype(...)"),
    "two of them": (f"{darts()}\n{darts()}", "not one Genotype(...)"),
    "half a text": (darts()[:-9], "is not Python"),
    "another call": ("print(1)", "not one Genotype(...)"),
    "code": ("__import__('os').system('touch marker')", "not one Genotype(...)"),
    "code inside": (darts("__import__('os').system('touch marker')"), "normal is not a literal list"),
    "code in an edge": (darts("[(open('marker', 'w'), 0)]"), "normal is not a literal list"),
    "code in range": (darts(concat="range(*open('marker', 'w'))"), "normal_concat is not a literal list"),
    "code after": (f"{darts()}; open('marker', 'w')", "not one Genotype(...)"),
    "a field too few": ("Genotype(normal=[], reduce=[])", "normal, normal_concat, reduce, reduce_concat once each"),
    "a field twice": (f"Genotype({EDGES}, [2], {EDGES}, normal=[])", "once each"),
    "a field too many": (darts()[:-1] + ", x=1)", "once each"),
    "fields from elsewhere": ("Genotype(**fields)", "once each"),
    "starred": ("Genotype(*fields)", "once each"),
    "not pairs": (darts("[1, 2]"), "normal is [1, 2]; write it as"),
    "an edge too few": (darts("[('sep_conv_3x3', 0)]"), "every node takes two, add or drop one"),
    "unknown op": (darts(EDGES.replace("sep", "sap")), "normal: op is 'sap_conv_3x3', not an op"),
    "the same source": (darts(EDGES.replace("1)", "0)")), "reads source 0 twice"),
    "a forward edge": (darts(EDGES.replace("1)", "2)")), "choose a source from 0 to 1"),
    "not all nodes put out": (darts(concat="[3]"), "use a genotype with range(2, 3)"),
    "a huge range": (darts(concat="range(10**18)"), "normal_concat is not a literal list"),
    "a huge written range": (darts(concat="range(0, 1000000000000000000000)"), "use a genotype with range(2, 3)"),
    "range of text": (darts(concat="range('2', 3)"), "normal_concat is not a literal list"),
    "nested operators": (darts("-" * 15_000 + "1"), "write it as Genotype"),
    "nested brackets": (darts("[" * 5_000 + "]" * 5_000), "is not Python"),
    "names of names": (".".join(["a"] * 9_000) + "(1)", "write it as Genotype"),
    "too long": (darts() + " " * 20_000, "more than 20,000 bytes"),
    "a null byte": (darts() + "\0", "is not Python"),
}

CASES = [
    pytest.param(suffix, content, said, id=f"{suffix[1:]} {name}")
    for suffix, cases in ((".json", MALFORMED_JSON), (".txt", MALFORMED_DARTS))
    for name, (content, said) in cases.items()
]


@pytest.mark.parametrize(("suffix", "content", "said"), CASES)
def test_a_malformed_file_gives_one_line_with_file_place_and_remedy(
    suffix: str, content: str | bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(InputError) as error:
        Genotype.load(path)
    message = str(error.value)
    assert time.process_time() - start < 1
    assert str(path) in message
    assert said in message
    assert "\n" not in message
    assert len(message) < 600
    assert any(remedy in message for remedy in (";", "?", "read from")), "no remedy"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_is_no_readable_file_gives_one_line(tmp_path: Path) -> None:
    for name, said in (("missing.json", "is not there"), ("missing.txt", "is not there"), ("", "is a folder")):
        with pytest.raises(InputError, match=said):
            Genotype.load(tmp_path / name)


def test_the_files_that_the_malformed_ones_were_made_from_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(file_with())
    (tmp_path / "good.txt").write_text(darts())
    assert Genotype.load(tmp_path / "good.json") == Genotype.load(tmp_path / "good.txt")
