"""Checks every image of a data set before training: what is there, all errors and all oddities; writes nothing."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jointsearch.data.check_objects import check_objects
from jointsearch.data.check_text import counted, grouped
from jointsearch.data.dataset_words import form_of
from jointsearch.data.datasets import FILES, DataSettings
from jointsearch.data.decode import Form, decode_image, image_shape
from jointsearch.data.facts import Photo, class_facts, photo_facts, split_facts, suggested_size
from jointsearch.data.files import Finding, shown
from jointsearch.data.load import FEW, divided
from jointsearch.data.object_datasets import OBJECT_FILES
from jointsearch.data.oddities import oddities
from jointsearch.data.sets import FoundSplits, ImageSet
from jointsearch.data.sources import FoundFiles, shape_text, skip_word, streamed
from search_spaces.errors import InputError

MOST_SKIPPED = 50  # broken files that one word leaves out; more of them are better moved away
UNEVEN = 2  # times as many images as the smallest class has, from which on that is a warning


@dataclass(frozen=True)
class _Seen:
    """The facts about a readable image."""

    name: str
    class_name: str
    shape: tuple[int, int, int]
    digest: bytes


@dataclass(frozen=True)
class Checked:
    """What is there, in lines, and what is wrong with it, errors first."""

    facts: tuple[str, ...]
    findings: tuple[Finding, ...]
    broken: tuple[str, ...] = ()  # images that cannot be read, as dataset.skip names them

    def count(self, severity: str) -> int:
        """How many findings are errors, or warnings."""
        return sum(finding.severity == severity for finding in self.findings)


def check_data(settings: Any) -> list[Finding]:
    """All findings about the data set, errors first; each names the file and the remedy."""
    return list(checked(settings).findings)


def check_data_report(settings: Any, every: bool = False) -> tuple[str, bool]:
    """Facts and findings as text, with a last line that counts them, and whether training would be refused.

    Equal findings are one, with three files; `every` lists all of them.
    """
    found = checked(settings)
    errors, warnings = found.count("error"), found.count("warning")
    place = f": {shown(str(settings.path))}" if getattr(settings, "path", None) else ""
    lines = [f"dataset={settings.name}{place}", *(f"  {line}" for line in found.facts)]
    lines += grouped(found.findings, every)
    if 0 < len(found.broken) <= MOST_SKIPPED:
        word = skip_word([*settings.skip, *found.broken])
        lines.append(f"to train without {counted(len(found.broken), 'broken image')}: {word}")
    lines.append(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return "\n".join(lines), errors > 0


def checked(settings: Any) -> Checked:
    """Everything about a data set."""
    facts: list[str] = []
    findings: list[Finding] = []
    broken: list[str] = []
    try:
        if isinstance(settings, OBJECT_FILES):
            of_objects, listed = check_objects(settings)
            facts += of_objects
            findings += listed
        elif isinstance(settings, FILES):
            broken += _check_files(settings, facts, findings)
        else:
            found = settings.find()
            facts += [*_class_facts(found), split_facts(found, settings)]
            findings += [*_copies(_read_pixels(found)), *_split_findings(found, settings)]
    except InputError as error:
        text = str(error).removeprefix(f"dataset {settings.name}: ")
        findings.append(Finding("error", f"dataset={shown(settings.name)}:", text))
    findings.sort(key=lambda finding: finding.severity != "error")
    return Checked(tuple(facts), tuple(findings), tuple(broken))


def _check_files(settings: Any, facts: list[str], findings: list[Finding]) -> list[str]:
    """Add the facts and findings of a data set in files. Returns what cannot be read."""
    files, problems = settings.files()
    form = form_of(settings)
    seen, photos, of_images = _read_files(files, form)
    findings += [*problems, *of_images.values(), *_shape_findings(seen, suggested_size(photos)), *_copies(seen)]
    facts.append(class_facts(files["train"].classes, [label for found in files.values() for label in found.labels]))
    facts += photo_facts(photos, settings)
    if not any(finding.severity == "error" for finding in findings):
        found = streamed(files, form, 0)
        facts.insert(1, split_facts(found, settings))
        findings += _split_findings(found, settings)
    return [key for (key, _), finding in of_images.items() if finding.severity == "error"]


def _class_facts(found: FoundSplits) -> list[str]:
    parts = [part for part in (found.train, found.validation, found.test) if part is not None]
    return [class_facts(found.train.classes, [label for part in parts for label in part.labels.tolist()])]


def _read_files(
    files: dict[str, FoundFiles], form: Form
) -> tuple[list[_Seen], list[Photo], dict[tuple[str, str], Finding]]:
    """All readable images, and by key and text a finding for every one that is unreadable or odd."""
    seen, photos, findings = [], [], {}
    for split, found in files.items():
        for row, label in enumerate(found.labels):
            name, key = found.encoded.name(row), found.encoded.key(row)
            try:
                data = found.encoded.data(row)
                whole = decode_image(data, name, form.channels, form.background)
            except InputError as error:
                text = str(error).removeprefix(name).lstrip()
                findings[key, text] = Finding("error", name, text)
                continue
            image = form.fitted(whole)
            findings |= {(key, oddity): _warning(name, oddity) for oddity in oddities(data, form.background)}
            photos.append(Photo.of(whole, image, split == "train"))
            class_name = found.classes[label] if label >= 0 else "unknown"
            seen.append(_Seen(name, class_name, image_shape(image), _digest(image)))
    return seen, photos, findings


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


def _warning(name: str, text: str, other: str = "") -> Finding:
    return Finding("warning", name, text, other)


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.numpy().tobytes()).digest()


def _shape_findings(seen: list[_Seen], size: int) -> list[Finding]:
    """An error for each image that has not the most frequent shape."""
    if len(counts := Counter(image.shape for image in seen)) < 2:
        return []
    [(usual, _)] = counts.most_common(1)
    remedy = f"set dataset.image_size={size} (and dataset.channels) to bring all images to one form"
    findings = []
    for image in seen:
        if image.shape != usual:
            text = f"is {shape_text(image.shape)}, and most are {shape_text(usual)}; {remedy}"
            findings.append(Finding("error", image.name, text, shape_text(image.shape)))
    return findings


def _copies(seen: list[_Seen]) -> list[Finding]:
    """A warning for each image with the same pixels as an earlier one."""
    first_of: dict[bytes, _Seen] = {}
    findings = []
    for image in seen:
        first = first_of.setdefault(image.digest, image)
        if first is not image:
            text = f"has the same pixels as {first.name}; remove one, so that no training image is also a test image"
            if first.class_name != image.class_name:
                text = f"has the same pixels as {first.name} but another class; remove the one with the wrong class"
            findings.append(_warning(image.name, text, first.name))
    return findings


def _split_findings(found: FoundSplits, settings: DataSettings) -> list[Finding]:
    """Classes that a held-out part lacks, classes too small to be in more than one part, and uneven classes."""
    classes = [shown(name) for name in found.train.classes]
    title = f"dataset={settings.name}"
    counts = torch.bincount(found.train.labels, minlength=len(classes)).tolist()
    findings = [
        _warning(title, f"has one training image of class {name}, so no other split can have one; add images", name)
        for name, count in zip(classes, counts, strict=True)
        if count == 1
    ]
    _, validation, test = divided(found, settings, 0)
    for split, part in (("validation", validation), ("test", test)):
        missing = sorted(set(range(len(classes))) - set(part.labels.tolist())) if len(part) else []
        for label in missing:
            remedy = "add images of it" if counts[label] < FEW else "hold out more images"
            text = f"has no {split} image of class {classes[label]}, so the accuracy leaves this class out; {remedy}"
            findings.append(_warning(title, text, classes[label]))
    few, most = min(counts), max(counts)
    if few and most > UNEVEN * few and not getattr(settings, "balanced", True):
        names = [f"{count} of class {classes[counts.index(count)]}" for count in (most, few)]
        text = f"has {' and '.join(names)}, and a network learns the larger classes better; dataset.balanced=true"
        findings.append(_warning(title, f"{text} trains on equally many of each"))
    return findings
