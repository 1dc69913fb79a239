"""A small world whose truth is known: drawings of everyday objects on backgrounds, with captions, boxes and masks."""

from secondsight.data.scenes.dataset import Scenes, export_coco, open_scenes
from secondsight.data.scenes.world import STYLES, things

__all__ = ["STYLES", "Scenes", "export_coco", "open_scenes", "things"]
