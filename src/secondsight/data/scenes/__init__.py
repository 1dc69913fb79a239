"""A small world with exact annotations: drawings of everyday objects on backgrounds, with captions, boxes and masks."""

from secondsight.data.scenes.dataset import Scenes, export_coco, open_scenes
from secondsight.data.scenes.world import STYLES, classes

__all__ = ["STYLES", "Scenes", "classes", "export_coco", "open_scenes"]
