"""Draw a policy, or convert one of others: python scripts/show_policy.py FILE|NAME out=FILE.png save=FILE.json"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.data.load import DataSettings, load_splits
from jointsearch.report.contact_sheet import (
    IMAGES,
    check_picture,
    evenly_spread,
    folder_images,
    photo_images,
    write_contact_sheet,
)
from jointsearch.settings import bounded, build
from scripts.door import run
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.plain_json import shown_path
from search_spaces.policy import Policy
from search_spaces.readers.read import SUFFIXES, read_policy, recognized
from search_spaces.schedule import PolicySchedule


@dataclass(frozen=True)
class Settings:
    """What configs/show_policy.yaml holds."""

    policy: str
    name: str | None = None
    skip_unknown: bool = False
    save: str | None = None
    ops: tuple[str, ...] | None = None
    images: str | None = None
    out: str | None = None
    rows: int = bounded(25, 1, 1000)
    seed: int = bounded(0, 0, 2**31)


def main(config: dict[str, Any]) -> None:
    """Write one picture, or one for each span of a schedule; and the policy as a file of ours."""
    dataset = config.pop("dataset", None)
    settings = build(Settings, config, "show_policy")
    out = Path(settings.out or f"{Path(settings.policy).stem}.png")
    found = _found(settings)
    if isinstance(found, Policy):
        sheets = [(found, out)]
    else:
        sheets = [(policy, out.with_stem(f"{out.stem}_from_epoch_{start}")) for start, policy in found.spans]
    images = _images(settings, dataset)
    check_picture(out)
    try:
        if settings.save:
            _save(found, settings.save)
        for policy, path in sheets:
            write_contact_sheet(policy, images, path, settings.seed, settings.rows)
            print(path)
    except OSError as error:
        where = shown_path(error.filename or out)
        raise InputError(f"{where} cannot be written ({error.strerror}); give another in save or out") from None


def _found(settings: Settings) -> Policy | PolicySchedule:
    """A policy of ours, or one that others published, with a line for everything that ours says differently."""
    if not settings.policy.lower().endswith(SUFFIXES) or recognized(settings.policy)[0] == "ours":
        if settings.name or settings.skip_unknown:
            raise InputError("name and skip_unknown are for files of others; leave them out")
        return resolve_policy(settings.policy, settings.ops, settings.seed)
    if settings.ops:
        raise InputError(f"policy file {shown_path(settings.policy)} has its own ops; leave ops out, or name a control")
    imported = read_policy(settings.policy, settings.name, settings.skip_unknown)
    for line in imported.approximations:
        print(f"approximated: {line}")
    return imported.policy


def _save(found: Policy | PolicySchedule, path: str) -> None:
    if not path.endswith(".json") or not Path(path).absolute().parent.is_dir():
        raise InputError(f"save is {shown_path(path)}; give a file name that ends in .json, in a folder that exists")
    if Path(path).exists():
        raise InputError(f"save is {shown_path(path)}, which exists; give a new name")
    found.save(path)
    print(path)


def _images(settings: Settings, dataset: dict[str, Any] | None) -> Tensor:
    if settings.images and dataset:
        raise InputError("both images and dataset are given; give one of them")
    if not dataset:
        return folder_images(settings.images) if settings.images else photo_images()
    test = load_splits(build(DataSettings, dataset, "dataset"), settings.seed).test
    order = torch.tensor(evenly_spread(len(test), IMAGES))
    return next(iter(test.batches(order, IMAGES))).images


if __name__ == "__main__":
    sys.exit(run(main, "show_policy"))
