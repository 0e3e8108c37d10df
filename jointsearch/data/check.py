"""Checks every image of a data set before training, and lists all errors and oddities; writes nothing."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.check_objects import check_objects
from jointsearch.data.datasets import FILES, DataSettings, form_of
from jointsearch.data.decode import Form, image_shape
from jointsearch.data.files import Finding, shown
from jointsearch.data.load import divided
from jointsearch.data.object_datasets import OBJECT_FILES
from jointsearch.data.oddities import oddities
from jointsearch.data.sets import FoundSplits, ImageSet
from jointsearch.data.sources import FoundFiles, mixed_shapes, streamed
from search_spaces.errors import InputError


@dataclass(frozen=True)
class _Seen:
    """The facts about a readable image."""

    name: str
    class_name: str
    shape: tuple[int, int, int]
    digest: bytes


def check_data(settings: Any) -> list[Finding]:
    """All findings about the data set, errors first; each names the file and the remedy."""
    findings: list[Finding] = []
    try:
        if isinstance(settings, OBJECT_FILES):
            findings += check_objects(settings)
        elif isinstance(settings, FILES):
            files, problems = settings.files()
            seen, unreadable = _read_files(files, form_of(settings))
            findings += [*problems, *unreadable, *_shape_findings(seen), *_copies(seen)]
            if not _has_error(findings):
                findings += _split_findings(streamed(files, form_of(settings), 0), settings)
        else:
            found = settings.find()
            findings += [*_copies(_read_pixels(found)), *_split_findings(found, settings)]
    except InputError as error:
        findings.append(Finding("error", f"dataset={shown(settings.name)}:", str(error)))
    return sorted(findings, key=lambda finding: finding.severity != "error")


def check_data_report(settings: Any) -> tuple[str, bool]:
    """The findings as text, with a last line that counts them, and whether training would be refused."""
    findings = check_data(settings)
    errors = sum(finding.severity == "error" for finding in findings)
    lines = [f"{finding.severity}: {finding}" for finding in findings]
    lines.append(f"dataset={settings.name}: {errors} errors, {len(findings) - errors} warnings")
    return "\n".join(lines), errors > 0


def _has_error(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _warning(name: str, text: str) -> Finding:
    return Finding("warning", name, text)


def _read_files(files: dict[str, FoundFiles], form: Form) -> tuple[list[_Seen], list[Finding]]:
    """All readable images, and a finding for every unreadable or odd one."""
    seen, findings = [], []
    for found in files.values():
        for row, label in enumerate(found.labels):
            name = found.encoded.name(row)
            try:
                data = found.encoded.data(row)
                image = form.decode(data, name)
            except InputError as error:
                findings.append(Finding("error", name, str(error).removeprefix(name).lstrip()))
                continue
            findings += [_warning(name, oddity) for oddity in oddities(data, form.background)]
            class_name = found.classes[label] if label >= 0 else "unknown"
            seen.append(_Seen(name, class_name, image_shape(image), _digest(image)))
    return seen, findings


def _read_pixels(found: FoundSplits) -> list[_Seen]:
    """All images of a data set that holds decoded pixels."""
    seen = []
    for split in ("train", "validation", "test"):
        part = getattr(found, split)
        if isinstance(part, ImageSet):
            for row, (image, label) in enumerate(zip(part.images, part.labels.tolist(), strict=True)):
                name = f"{split} image {row}"
                seen.append(_Seen(name, part.classes[label], part.image_shape, _digest(image)))
    return seen


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.numpy().tobytes()).digest()


def _shape_findings(seen: list[_Seen]) -> list[Finding]:
    """One error for each shape that is not the most frequent one."""
    counts = Counter(image.shape for image in seen).most_common()
    first_of = {image.shape: image.name for image in reversed(seen)}
    findings = []
    for shape, count in counts[1:]:
        more = f"and {count - 1} more: " if count > 1 else ""
        usual = counts[0][0]
        findings.append(Finding("error", first_of[shape], more + mixed_shapes(shape, first_of[usual], usual)))
    return findings


def _copies(seen: list[_Seen]) -> list[Finding]:
    """A warning for each image with the same pixels as an earlier one."""
    first_of: dict[bytes, _Seen] = {}
    findings = []
    for image in seen:
        first = first_of.setdefault(image.digest, image)
        if first is not image:
            classes = " but another class" if first.class_name != image.class_name else ""
            remedy = "remove one, so that no training image is also a test image"
            findings.append(_warning(image.name, f"has the same pixels as {first.name}{classes}; {remedy}"))
    return findings


def _split_findings(found: FoundSplits, settings: DataSettings) -> list[Finding]:
    """Classes that a held-out part lacks, and classes too small to be in more than one part."""
    classes = [shown(name) for name in found.train.classes]
    title = f"dataset={settings.name}"
    counts = torch.bincount(found.train.labels, minlength=len(classes)).tolist()
    findings = [
        _warning(title, f"has one training image of class {name}, so no other split can have one; add images")
        for name, count in zip(classes, counts, strict=True)
        if count == 1
    ]
    _, validation, test = divided(found, settings, 0)
    for split, part in (("validation", validation), ("test", test)):
        missing = sorted(set(range(len(classes))) - set(part.labels.tolist())) if len(part) else []
        text = f"has no {split} image of class {{}}, so the accuracy leaves this class out; hold out more images"
        findings += [_warning(title, text.format(classes[label])) for label in missing]
    return findings
