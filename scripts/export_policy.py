"""Write a policy for another library: python scripts/export_policy.py policy=policy.json format=torchvision"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the scripts find each other

from jointsearch.export.policy_albumentations import albumentations_json
from jointsearch.export.policy_torchvision import torchvision_policy
from jointsearch.run_folder import replace_file
from jointsearch.settings import build, choice
from scripts.door import run
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.plain_json import shown, shown_path
from search_spaces.policy import Policy

FILES = {
    "torchvision": ("policy_torchvision.py", torchvision_policy),
    "albumentations": ("policy_albumentations.json", albumentations_json),
}
OBJECTS = {"timm": "timm_auto_augment", "kornia": "kornia_auto_augment"}


@dataclass(frozen=True)
class Settings:
    """What configs/export_policy.yaml holds."""

    policy: str
    format: str = choice("torchvision", *FILES, *OBJECTS)
    output: str | None = None
    leave_out: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format in OBJECTS:
            raise InputError(
                f"format={self.format} is a Python object, not a file; in Python: from "
                f"jointsearch.export.policy_{self.format} import {OBJECTS[self.format]}; or choose format=torchvision"
            )


def main(config: dict[str, Any]) -> None:
    """Write one file, and print what the other library can only approximate."""
    settings = build(Settings, config, "export_policy")
    policy = resolve_policy(settings.policy)
    if not isinstance(policy, Policy):
        raise InputError(
            f"policy={shown(settings.policy, 200)} holds a policy for each span of epochs, and an export knows no "
            "epochs; save one of them, in Python: load_policy_or_schedule(path).at(epoch).save('policy.json')"
        )
    name, export = FILES[settings.format]
    output = Path(settings.output or name)
    if output.exists() and not (settings.overwrite and output.is_file()):
        raise InputError(f"output {shown_path(output)} is already there; give overwrite=true, or output= another file")
    exported = export(policy, settings.leave_out)
    try:
        replace_file(output, exported.value.encode())
    except OSError as error:
        raise InputError(f"output {shown_path(output)} cannot be written ({error.strerror}); give another") from None
    print(output)
    for line in exported.approximations or ("nothing",):
        print(f"approximated: {line}")


if __name__ == "__main__":
    sys.exit(run(main, "export_policy"))
