"""Write a policy for another library."""

from dataclasses import dataclass
from pathlib import Path

from jointsearch.commands.found import first_policy
from jointsearch.export.policy_albumentations import albumentations_json
from jointsearch.export.policy_torchvision import torchvision_policy
from jointsearch.runs.run_folder import replace_file
from jointsearch.settings import choice, setting
from search_spaces.controls import resolve_policy
from search_spaces.errors import InputError
from search_spaces.plain_json import shown, shown_path
from search_spaces.policy import Policy

FILES = {
    "torchvision": ("policy_torchvision.py", torchvision_policy),
    "albumentations": ("policy_albumentations.json", albumentations_json),
}
OBJECTS = {"timm": "timm_auto_augment", "kornia": "kornia_auto_augment"}


SUBJECT = "policy"
MOST_USED = ()


@dataclass(frozen=True)
class Settings:
    """What is written, and where to."""

    policy: str = setting(
        "policy.json", help="a policy file, a control, as random-s3, or the run folder of a search, of its first seed"
    )
    format: str = choice("torchvision", *FILES, *OBJECTS, help="torchvision: one Python file; albumentations: JSON")
    output: str | None = setting(None, help="the file; null names it after the format, in the current folder")
    leave_out: bool = setting(
        False, help="true drops ops that the other library cannot have: SamplePairing and your own"
    )
    overwrite: bool = setting(False, help="an output that is already there is replaced")
    plugins: tuple[str, ...] = setting((), help="Python files that add ops of your own")

    def __post_init__(self) -> None:
        if self.format in OBJECTS:
            raise InputError(
                f"format={self.format} is a Python object, not a file; in Python: from "
                f"jointsearch.export.policy_{self.format} import {OBJECTS[self.format]}; or choose format=torchvision"
            )


def main(given: Settings) -> None:
    """Write one file, and print what the other library can only approximate."""
    policy = resolve_policy(first_policy(given.policy))
    if not isinstance(policy, Policy):
        raise InputError(
            f"policy={shown(given.policy, 200)} holds a policy for each span of epochs, and an export knows no "
            "epochs; save one of them, in Python: load_policy_or_schedule(path).at(epoch).save('policy.json')"
        )
    name, export = FILES[given.format]
    output = Path(given.output or name)
    if output.exists() and not (given.overwrite and output.is_file()):
        raise InputError(f"output {shown_path(output)} is already there; give overwrite=true, or output= another file")
    exported = export(policy, given.leave_out)
    try:
        replace_file(output, exported.value.encode())
    except OSError as error:
        raise InputError(f"output {shown_path(output)} cannot be written ({error.strerror}); give another") from None
    print(output)
    for line in exported.approximations or ("nothing",):
        print(f"approximated: {line}")
