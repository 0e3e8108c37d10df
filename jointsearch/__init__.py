"""Search data-augmentation policies and network architectures together, and measure whether it helped."""

from typing import TYPE_CHECKING

from search_spaces.on_demand import names_on_demand

if TYPE_CHECKING:
    from jointsearch.compose import compose_study
    from jointsearch.data.check import check_data
    from jointsearch.data.datasets import Cifar10, Cifar100, Digits, Folder, HuggingFace, Shapes, Svhn
    from jointsearch.data.load import load_splits
    from jointsearch.data.object_datasets import Coco, Voc
    from jointsearch.data.standard import Standard
    from jointsearch.front_end import augment
    from jointsearch.loops.backbones import Backbone, backbones_of
    from jointsearch.loops.detect import DetectionGrid, run_detection
    from jointsearch.loops.grid import Grid, run_grid
    from jointsearch.loops.recipe import Recipe, SearchRecipe
    from jointsearch.loops.task import Task
    from jointsearch.networks.create import create_network
    from jointsearch.networks.detectors import FasterRcnn, MaskRcnn, RetinaNet
    from jointsearch.networks.detr import DFine
    from jointsearch.networks.network_settings import NetworkSettings
    from jointsearch.networks.trained import load_detector, load_network
    from jointsearch.registry import register_choice
    from jointsearch.report.comparison import Comparison, compare
    from jointsearch.study import Study, StudyResult, prepare, run_study

__all__ = [
    "Backbone",
    "Cifar10",
    "Cifar100",
    "Coco",
    "Comparison",
    "DFine",
    "DetectionGrid",
    "Digits",
    "FasterRcnn",
    "Folder",
    "Grid",
    "HuggingFace",
    "MaskRcnn",
    "NetworkSettings",
    "Recipe",
    "RetinaNet",
    "SearchRecipe",
    "Shapes",
    "Standard",
    "Study",
    "StudyResult",
    "Svhn",
    "Task",
    "Voc",
    "augment",
    "backbones_of",
    "check_data",
    "compare",
    "compose_study",
    "create_network",
    "load_detector",
    "load_network",
    "load_splits",
    "prepare",
    "register_choice",
    "run_detection",
    "run_grid",
    "run_study",
]


_PLACES = {
    "compose_study": "jointsearch.compose",
    "check_data": "jointsearch.data.check",
    "Cifar10": "jointsearch.data.datasets",
    "Cifar100": "jointsearch.data.datasets",
    "Digits": "jointsearch.data.datasets",
    "Folder": "jointsearch.data.datasets",
    "HuggingFace": "jointsearch.data.datasets",
    "Shapes": "jointsearch.data.datasets",
    "Svhn": "jointsearch.data.datasets",
    "load_splits": "jointsearch.data.load",
    "Coco": "jointsearch.data.object_datasets",
    "Voc": "jointsearch.data.object_datasets",
    "Standard": "jointsearch.data.standard",
    "augment": "jointsearch.front_end",
    "Backbone": "jointsearch.loops.backbones",
    "backbones_of": "jointsearch.loops.backbones",
    "DetectionGrid": "jointsearch.loops.detect",
    "run_detection": "jointsearch.loops.detect",
    "Grid": "jointsearch.loops.grid",
    "run_grid": "jointsearch.loops.grid",
    "Recipe": "jointsearch.loops.recipe",
    "SearchRecipe": "jointsearch.loops.recipe",
    "Task": "jointsearch.loops.task",
    "create_network": "jointsearch.networks.create",
    "NetworkSettings": "jointsearch.networks.network_settings",
    "FasterRcnn": "jointsearch.networks.detectors",
    "MaskRcnn": "jointsearch.networks.detectors",
    "RetinaNet": "jointsearch.networks.detectors",
    "DFine": "jointsearch.networks.detr",
    "load_detector": "jointsearch.networks.trained",
    "load_network": "jointsearch.networks.trained",
    "register_choice": "jointsearch.registry",
    "Comparison": "jointsearch.report.comparison",
    "compare": "jointsearch.report.comparison",
    "Study": "jointsearch.study",
    "StudyResult": "jointsearch.study",
    "prepare": "jointsearch.study",
    "run_study": "jointsearch.study",
}

__getattr__, __dir__ = names_on_demand(__name__, _PLACES)
