"""Policy files that have to be refused, and what the one line must say."""

import json


def file_with(**changes: object) -> str:
    rotate = {"op": "Rotate", "probability": 1, "magnitude": 0.5}
    data = {"format": "jointsearch-policy", "version": 1, "sub_policies": [{"ops": [rotate]}], **changes}
    return json.dumps({key: value for key, value in data.items() if value is not ...})


def row(*ops: object, **changes: object) -> str:
    return file_with(sub_policies=[{"ops": [{"op": "Invert", "probability": 1}]}, {"ops": list(ops), **changes}])


def rotate(**changes: object) -> str:
    entry = {"op": "Rotate", "probability": 1, "magnitude": 0.5, **changes}
    return row({key: value for key, value in entry.items() if value is not ...})


def schedule(*spans: object) -> str:
    return json.dumps({"format": "jointsearch-schedule", "version": 1, "spans": list(spans)})


def span(start: object, text: str | None = None) -> object:
    return {"from_epoch": start, "policy": json.loads(text or file_with())}


HERE = "sub_policies[1].ops[0]"
# What is in the file, and what the one line must say: the place, or what is wrong, or what to do.
MALFORMED = {
    "empty": ("", "not valid JSON at line 1, column 1"),
    "not json": ("policy = 1", "not valid JSON"),
    "half a file": (file_with()[:-9], "not valid JSON"),
    "byte order mark": ("\ufeff" + file_with(), "not valid JSON"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "not UTF-8 text"),
    "utf-16": (file_with().encode("utf-16"), "not UTF-8 text"),
    "python": ("__import__('os').system('touch marker')", "not valid JSON"),
    "a list": ("[]", "wanted an object"),
    "a number": ("1", "wanted an object"),
    "null": ("null", "wanted an object"),
    "no format": (file_with(format=...), "format is None"),
    "other format": (file_with(format="timm"), "scripts/show_policy.py policy=FILE save=policy.json"),
    "no version": (file_with(version=...), "version is None"),
    "later version": (file_with(version=3), "this code reads version 1 and 2, update"),
    "version true": (file_with(version=True), "version is True"),
    "unknown key": (file_with(sub_policy=[]), "did you mean sub_policies"),
    "name a number": (file_with(name=3), "name is 3"),
    "name too long": (file_with(name="n" * 201), "1 to 200 printable"),
    "no sub-policies": (file_with(sub_policies=...), "sub_policies is None"),
    "sub-policies empty": (file_with(sub_policies=[]), "sub_policies is empty"),
    "sub-policies an object": (file_with(sub_policies={}), "sub_policies is {}"),
    "sub-policy a list": (file_with(sub_policies=[[]]), "sub_policies[0] is []"),
    "sub-policy without ops": (file_with(sub_policies=[{}]), "sub_policies[0].ops is None"),
    "sub-policy with p": (row(p=1), "sub_policies[1] has the unknown key 'p'"),
    "ops null": (row(ops=None), "sub_policies[1].ops is None"),
    "seventeen ops": (row(*[{"op": "Invert", "probability": 1}] * 17), "at most 16"),
    "op a text": (row("Rotate"), f"{HERE} is 'Rotate'"),
    "op with a typo": (rotate(op="rotate"), "did you mean Rotate?"),
    "op code": (rotate(op="__import__('os').system('touch marker')"), f"{HERE}: op is"),
    "op a list": (rotate(op=["Rotate"]), f"{HERE}: op is ['Rotate']"),
    "op missing": (rotate(op=...), "give at least op and probability"),
    "probability missing": (rotate(probability=...), "give at least op and probability"),
    "probability above one": (rotate(probability=1.5), f"{HERE}: probability is 1.5; wanted a number from 0 to 1"),
    "probability true": (rotate(probability=True), "probability is True"),
    "probability a text": (rotate(probability="0.5"), "probability is '0.5'"),
    "probability null": (rotate(probability=None), "probability is None"),
    "magnitude below zero": (rotate(magnitude=-1), f"{HERE}: magnitude is -1; wanted a number from 0 to 1"),
    "magnitude missing": (rotate(magnitude=...), "magnitude is None"),
    "magnitude of an op without": (rotate(op="Invert"), "leave magnitude out"),
    "magnitude nan": (rotate().replace("0.5", "NaN"), "the number NaN; only finite"),
    "magnitude infinite": (rotate().replace("0.5", "-Infinity"), "only finite"),
    "magnitude 1e999": (rotate().replace("0.5", "1e999"), "only finite"),
    "level for magnitude": (rotate(level=9), f"{HERE} has the unknown key 'level'"),
    "weight negative": (row(weight=-1), "sub_policies[1]: weight is -1"),
    "weight a text": (row(weight="1"), "weight is '1'"),
    "weights all zero": (file_with(sub_policies=[{"ops": [], "weight": 0}]), "weights of all sub_policies add up to 0"),
    "weight of 100,000 digits": (row(weight=1).replace('"weight": 1', '"weight": ' + "9" * 100_000), "only finite"),
    "a key twice": (file_with().replace('"version"', '"version": 1, "version"'), "'version' twice"),
    "other scale": (file_with(ops={"Rotate": {"at_0": 0, "at_1": 90}}), "ops.Rotate"),
    "scale of no op": (file_with(ops={"Rotation": {}}), "unknown op 'Rotation'"),
    "scales a list": (file_with(ops=[1]), "ops is [1]"),
    "a million entries": (file_with(sub_policies=[0] * 1_000_000), "sub_policies[0] is 0"),
    "many entries": (file_with(sub_policies=[0] * 300_000), "sub_policies[0] is 0"),
    "nested 100,000 deep": ("[" * 100_000 + "]" * 100_000, "nested deeper than"),
    "objects 50,000 deep": ('{"a":' * 50_000, "nested deeper than"),
    "key of a megabyte": (json.dumps({"k" * 900_000: 1}), "format is None"),
    "schedule without spans": (schedule(), "from_epoch 0"),
    "schedule from epoch 3": (schedule(span(3)), "from_epoch 0"),
    "schedule in disorder": (schedule(span(0), span(9), span(4)), "rising numbers"),
    "schedule from half an epoch": (schedule(span(0), span(1.5)), "spans[1].from_epoch is 1.5"),
    "schedule from true": (schedule(span(False)), "spans[0].from_epoch is False"),
    "schedule of names": (schedule({"from_epoch": 0, "policy": "none"}), "spans[0].policy holds 'none'"),
    "schedule of a bad policy": (
        schedule(span(0, rotate(probability=2))),
        f"spans[0].policy: {HERE}: probability is 2",
    ),
    "schedule with steps": (json.dumps({"format": "jointsearch-schedule", "version": 1, "steps": []}), "key 'steps'"),
}
