"""Networks by name. Importing this package registers its networks with timm; `create` builds any of them."""

from jointsearch.networks import cells, small_images, tiny, wide_resnet

__all__ = ["cells", "small_images", "tiny", "wide_resnet"]
