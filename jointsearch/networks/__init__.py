"""Networks by name. Importing this package registers its networks with timm; `create` builds any of them."""

from jointsearch.networks import (
    amoebanet,
    cells,
    dual_path,
    pyramid_net,
    shake_shake,
    small_images,
    tiny,
    wide_resnet,
)

__all__ = ["amoebanet", "cells", "dual_path", "pyramid_net", "shake_shake", "small_images", "tiny", "wide_resnet"]
