"""OPS, the table of all augmentation ops by name."""

from collections.abc import Iterable

from search_spaces.augment.color import COLOR_OPS
from search_spaces.augment.erase import ERASING_OPS
from search_spaces.augment.geometry import GEOMETRIC_OPS
from search_spaces.augment.mix import MIXING_OPS
from search_spaces.augment.op import AugOp
from search_spaces.augment.quantized import QUANTIZED_OPS
from search_spaces.errors import InputError, nearest

OPS: dict[str, AugOp] = {op.name: op for op in (*GEOMETRIC_OPS, *QUANTIZED_OPS, *COLOR_OPS, *ERASING_OPS, *MIXING_OPS)}

# DADA's fifteen ops, in DADA's order.
DADA_OPS = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "AutoContrast",
    "Invert",
    "Equalize",
    "Solarize",
    "Posterize",
    "Contrast",
    "Color",
    "Brightness",
    "Sharpness",
    "Cutout",
)


def check_op_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names as a tuple; the first unknown or repeated name raises an error."""
    checked = tuple(names)
    for position, name in enumerate(checked):
        if name not in OPS:
            raise InputError(f"{where} names the op {name!r}; {nearest(name, OPS)}")
        if name in checked[:position]:
            raise InputError(f"{where} names the op {name} twice; name it once")
    if not checked:
        raise InputError(f"{where} names no op; name at least one of {', '.join(OPS)}")
    return checked
