"""The check before training lists every bad and odd image at once, and the script ends with the right exit code."""

import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from jointsearch.commands.command import run
from jointsearch.data.check import check_data, check_data_report
from jointsearch.data.datasets import Cifar10, DataSettings, Digits, Folder
from jointsearch.data.files import Finding
from jointsearch.data.sets import FoundSplits, ImageSet
from tests.folders_bench import classes, gray, settings, write_folder, write_tar
from tests.images_bench import BAD, WHOLE, chunk, encoded, png, turned


def grain(name: str, **options) -> bytes:
    return encoded(Image.open(io.BytesIO(WHOLE["png"])), name, **options)


def named(findings: list[Finding], severity: str) -> dict[str, str]:
    return {Path(finding.file).name: finding.text for finding in findings if finding.severity == severity}


def test_a_sound_folder_gives_nothing(tmp_path: Path) -> None:
    path = write_folder(tmp_path, classes())
    assert check_data(settings(path)) == []


def test_every_bad_image_is_listed_with_its_reason_at_once(tmp_path: Path) -> None:
    files = {f"a/{name}.jpg": data for name, (data, _) in BAD.items()}
    for root in (
        write_folder(tmp_path / "set", {**classes(), **files}),
        write_tar(tmp_path / "set.tar", {**classes(), **files}),
    ):
        findings = check_data(settings(root))
        assert {finding.severity for finding in findings} == {"error"}
        errors = named(findings, "error")
        assert errors.keys() == {f"{name}.jpg" for name in BAD}
        assert all(words in errors[f"{name}.jpg"] for name, (_, words) in BAD.items())
        assert all("\n" not in str(finding) for finding in findings)


def test_irregular_files_are_listed_beside_unreadable_ones(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {**classes(), "a/x.png": b"", "outside.png": gray(1)})
    (root / "a" / "link.png").symlink_to("/etc/hostname")
    os.mkfifo(root / "b" / "pipe.png")
    (root / "c").mkdir()
    assert named(check_data(settings(root)), "error").keys() == {"x.png", "outside.png", "link.png", "pipe.png", "c"}


def test_odd_images_are_warnings_that_say_what_is_done_to_them(tmp_path: Path) -> None:
    odd = {
        "turned.png": (turned(6), "is set upright"),
        "clear.png": (png(2, 1, 8, 4, bytes(4)), "is shown on gray level 255, which dataset.background sets"),
        "palette.png": (png(2, 1, 8, 3, b"\0\0", chunk(b"PLTE", b"\1\2\3"), chunk(b"tRNS", b"\0")), "has transparency"),
        "deep.png": (png(2, 1, 16, 0, bytes(4)), "is scaled down to 8"),
        "print.tif": (encoded(Image.new("CMYK", (2, 1)), "TIFF"), "is converted to RGB, and colors may shift"),
        "bits.png": (png(2, 1, 1, 0, b"\x40"), "is read as black and white"),
    }
    path = write_folder(tmp_path, {**classes(), **{f"a/{name}": data for name, (data, _) in odd.items()}})
    findings = check_data(settings(path, image_size=2, channels=3))
    assert named(findings, "error") == {}
    warnings = [f"{Path(finding.file).name} {finding.text}" for finding in findings]
    for name, (_, words) in odd.items():
        assert any(warning.startswith(name) and words in warning for warning in warnings), name


def test_copies_are_found_across_splits_and_classes(tmp_path: Path) -> None:
    files = {**classes("train/"), **classes("test/", 9, 3), "test/a/copy.png": gray(0), "test/b/wrong.png": gray(20)}
    warnings = named(check_data(settings(write_folder(tmp_path, files))), "warning")
    assert warnings.keys() == {"copy.png", "wrong.png"}
    assert "has the same pixels as" in warnings["copy.png"]
    assert "train/a/0.png; remove one" in warnings["copy.png"]
    assert "train/a/1.png but another class; remove the one with" in warnings["wrong.png"]


def test_every_image_of_another_size_is_an_error_unless_a_size_is_set(tmp_path: Path) -> None:
    path = write_folder(
        tmp_path, {**classes(), "b/x.png": WHOLE["png"], "b/y.png": WHOLE["jpeg"], "b/z.png": png(1, 1, 8, 0, b"\xff")}
    )
    findings = check_data(settings(path))
    assert sorted(Path(finding.file).name for finding in findings) == ["x.png", "y.png", "z.png"]
    assert any("is 20x24 px with 3 channels, and most are 2x1 px with 1 channel" in one.text for one in findings)
    assert all(finding.severity == "error" and "set dataset.image_size=1 " in finding.text for finding in findings)
    assert check_data(settings(path, image_size=4, channels=3)) == []


def test_small_and_missing_classes_are_warnings(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {**classes("train/"), **classes("test/"), "train/c/0.png": gray(255)})
    texts = [str(finding) for finding in check_data(settings(path, image_size=2)) if "same pixels" not in finding.text]
    assert len(texts) == 4
    assert "has one training image of class c" in texts[0]
    assert "has no validation image of class c" in texts[1]
    assert "has no test image of class c" in texts[2]
    assert all(text.endswith("; add images of it") or text.endswith("; add images") for text in texts[:3])
    assert "has 10 of class a and 1 of class c" in texts[3]


@pytest.mark.parametrize(
    ("unusable", "words"),
    [
        (Folder(), "set dataset.path"),
        (Folder(path="nowhere"), "nowhere does not exist"),
        (Cifar10(path="nowhere", download=False), "leave dataset.download=false out"),
        (Digits(reduced=5000), "lower dataset.reduced"),
    ],
    ids=["no_place", "absent_place", "no_download", "too_many"],
)
def test_a_data_set_that_cannot_be_loaded_is_an_error(unusable: DataSettings, words: str) -> None:
    report, has_errors = check_data_report(unusable)
    assert has_errors
    assert words in report
    assert report.endswith("\n1 error, 0 warnings")


def test_copies_inside_a_published_set_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.arange(8, dtype=torch.uint8).view(-1, 1, 1, 1)
    train = ImageSet(pixels, torch.arange(8) % 2, ("a", "b"))
    found = FoundSplits(train, None, train.subset(torch.tensor([3, 4])))
    monkeypatch.setattr(Digits, "find", lambda settings: found)
    texts = [str(finding) for finding in check_data(Digits(validation=2))]
    assert [text.partition(";")[0] for text in texts] == [
        "test image 0 has the same pixels as train image 3",
        "test image 1 has the same pixels as train image 4",
    ]


def test_a_folder_without_any_class_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "1.png").write_bytes(gray(1))
    (tmp_path / "train").mkdir()
    assert named(check_data(settings(tmp_path)), "error")


def test_the_script_lists_everything_and_ends_with_2_and_writes_nothing(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_folder(tmp_path / "set", {**classes(), "a/x.png": b"", "b/y.png": b"text"})
    before = sorted(tmp_path.rglob("*"))
    code = run("check_data", ["dataset=folder", f"dataset.path={path}"])
    output = capsys.readouterr()
    assert code == 2
    assert f"error: {path}/a/x.png is empty" in output.out
    assert f"error: {path}/b/y.png is not recognized" in output.out
    assert output.out.endswith("\n2 errors, 0 warnings\n")
    assert output.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_script_ends_with_0_on_sound_data(capsys) -> None:
    assert run("check_data", ["dataset=digits"]) == 0
    assert capsys.readouterr().out.endswith("\n0 errors, 0 warnings\n")
