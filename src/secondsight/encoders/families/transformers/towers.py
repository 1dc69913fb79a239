"""Where the dual encoders of transformers keep their two sides, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from secondsight.encoders.base import ATTENTION_POOL
from secondsight.encoders.blocks import pooled_block, probe_block
from secondsight.encoders.host import Parts
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    from secondsight.paths.pooled import PooledBlock


@dataclass(frozen=True)
class Tower:
    """Where a model keeps one side: names of attributes, dotted where they lie deeper.

    `read` says what the tower's embedding is made from before `projection`: its "pooler" output, or the "first" hidden
    state. `pool` is the position that the last block is read at: "first", "last" or the "end" token, whose later
    neighbours a causal mask hides; "mean" for a mean and None for anything else. `probe` is an attention pool after the
    blocks. `finish` are the parts of the tower that follow the last block or pool, before the projection. `end` says
    how the end token is found: the "first" one of the configured id, the "highest" id of the text, or as in "clip", whose
    old configurations say 2 and mean the highest. `table` holds the token embeddings where the tower does not say so. `special`
    names the positions before the patches, of which there may be fewer. `merges` says that blocks are stages, which
    merge patches.
    """

    module: str
    projection: str | None
    blocks: str
    read: Literal["pooler", "first"] = "pooler"
    pool: Literal["first", "last", "end", "mean"] | None = "first"
    probe: str | None = None
    finish: tuple[str, ...] = ()
    end: Literal["clip", "first", "highest"] = "clip"
    table: str | None = None
    special: tuple[str, ...] = ("class",)
    merges: bool = False

    @property
    def pooling(self) -> str:
        """How positions become one embedding, in words."""
        if self.probe is not None:
            return ATTENTION_POOL
        if self.pool is None:
            return "its own"
        return "mean" if self.pool == "mean" else f"{self.pool} token"

    def host(self, model: PreTrainedModel) -> Any:
        """The tower itself."""
        return model.get_submodule(self.module)

    def parts(self, model: PreTrainedModel) -> Parts:
        """The tower of a model and its projection, by themselves."""
        projection = None if self.projection is None else model.get_submodule(self.projection)
        return Parts(tower=self.host(model), projection=projection)

    def block_list(self, parts: Parts) -> list[nn.Module]:
        """The blocks, and the attention pool where there is one."""
        blocks = list(parts.tower.get_submodule(self.blocks))
        return blocks if self.probe is None else [*blocks, parts.tower.get_submodule(self.probe)]

    def embedding(self, parts: Parts, output: BaseModelOutputWithPooling) -> Tensor:
        """The projected embeddings of a tower's output."""
        pooled: Tensor | None = output.last_hidden_state[:, 0]
        if self.read == "pooler":
            pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise InputError(
                f"the {self.module} {type(parts.tower).__name__} gives no pooled output, which the model's own similarity "
                "needs: give a tower that pools"
            )
        return pooled if parts.projection is None else parts.projection(pooled)

    def token_table(self, tower: Any) -> nn.Module:
        """The token embeddings of a text tower."""
        table: nn.Module = tower.get_input_embeddings() if self.table is None else tower.get_submodule(self.table)
        return table

    def end_position(self, ids: Tensor, end: int | None) -> int:
        """Where the first of `ids` (1, length) ends, `end` being the configured id."""
        if self.end == "highest" or (self.end == "clip" and end == 2):
            return int(ids[0].argmax())
        return int(ids[0].eq(-1 if end is None else end).int().argmax())

    def last_block(self, parts: Parts, positions: int, dtype: torch.dtype) -> PooledBlock | None:
        """The attention pool, or the last block read at one position."""
        block, finish = self.block_list(parts)[-1], self._finish(parts)
        if self.probe is not None:
            return probe_block(block, finish, dtype)
        if self.pool in (None, "mean"):
            return None
        return pooled_block(block, 0 if self.pool == "first" else positions - 1, finish, dtype)

    def _finish(self, parts: Parts) -> list[nn.Module | Callable[[Tensor], Tensor] | None]:
        def pooler(part: nn.Module) -> Callable[[Tensor], Tensor]:
            # BERT's poolers pick the first position of a sequence themselves.
            return lambda y: part(y[:, None])

        modules = [(name, parts.tower.get_submodule(name)) for name in self.finish]
        return [*(pooler(part) if name == "pooler" else part for name, part in modules), parts.projection]


Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of the colours that pixels are normalised by."""

OPENAI: Pixels = (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
_HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_UNIT = ((0.0,) * 3, (1.0,) * 3)


@dataclass(frozen=True)
class Model:
    """A model class: its two towers, how its processor pads texts, the image sizes it takes, and its logits' scale.

    `sizes` are "fixed", "any" whole number of patches, or "naflex" (patches in a sequence). `pixels` are the mean and
    deviation that its family usually normalises by. `scale` is the parameter that multiplies the similarity after
    `scaled_by`. `attention` is the only implementation that computes what the model was trained to.
    """

    name: str
    left: Tower
    text: Tower
    pads: bool = False
    sizes: Literal["fixed", "any", "naflex"] = "fixed"
    pixels: Pixels = OPENAI
    scale: str = "logit_scale"
    scaled_by: Callable[[Tensor], Tensor] = torch.exp
    attention: str | None = None


_PLAIN = Tower("vision_model", "visual_projection", "encoder.layers", finish=("post_layernorm",))
_CAUSAL = Tower("text_model", "text_projection", "encoder.layers", pool="end", finish=("final_layer_norm",))
_BERT = Tower("text_model", "text_projection", "encoder.layer", read="first")
_PROBED = Tower("vision_model", None, "encoder.layers", probe="head")
_LAST = Tower("text_model", None, "encoder.layers", pool="last", finish=("final_layer_norm", "head"))
_OWL = replace(_CAUSAL, end="highest", table="embeddings.token_embedding")

MODELS = {
    "clip": Model("CLIPModel", _PLAIN, _CAUSAL),
    "metaclip_2": Model("MetaClip2Model", _PLAIN, replace(_CAUSAL, end="first")),
    "siglip": Model("SiglipModel", _PROBED, _LAST, pads=True, pixels=_HALF),
    "siglip2": Model("Siglip2Model", _PROBED, _LAST, pads=True, sizes="naflex", pixels=_HALF),
    "align": Model(
        "AlignModel",
        Tower("vision_model", None, "encoder.blocks", pool="mean"),
        _BERT,
        scale="temperature",
        scaled_by=torch.reciprocal,
    ),
    "altclip": Model(
        "AltCLIPModel",
        _PLAIN,
        Tower(
            "text_model", "text_projection", "roberta.encoder.layers", read="first", finish=("pre_LN", "transformation")
        ),
    ),
    "chinese_clip": Model("ChineseCLIPModel", _PLAIN, _BERT),
    "blip": Model(
        "BlipForImageTextRetrieval",
        Tower("vision_model", "vision_proj", "encoder.layers", read="first", finish=("post_layernorm",)),
        Tower("text_encoder", "text_proj", "encoder.layer", read="first"),
    ),
    "groupvit": Model(
        "GroupViTModel",
        Tower("vision_model", "visual_projection", "encoder.stages.0.layers", pool=None),
        replace(_CAUSAL, table="embeddings.token_embedding"),
        pixels=IMAGENET,
    ),
    "clipseg": Model("CLIPSegModel", _PLAIN, _CAUSAL, sizes="any", pixels=IMAGENET),
    "owlvit": Model("OwlViTModel", _PLAIN, _OWL),
    "owlv2": Model("Owlv2Model", _PLAIN, _OWL),
    "flava": Model(
        "FlavaModel",
        Tower("image_model", "image_projection", "encoder.layer", read="first", finish=("layernorm",)),
        Tower("text_model", "text_projection", "encoder.layer", read="first", finish=("layernorm",)),
    ),
    "aimv2": Model(
        "Aimv2Model",
        Tower("vision_model", "visual_projection", "encoder.layers", probe="head"),
        replace(_CAUSAL, end="first", finish=("rms_norm",)),
        attention="eager",
    ),
    "tipsv2": Model(
        "Tipsv2Model",
        Tower("vision_model", None, "encoder.layer", finish=("layernorm",)),
        Tower("text_model", None, "encoder.layers", pool="mean"),
        sizes="any",
        pixels=_UNIT,
        scale="temperature",
        scaled_by=torch.reciprocal,
    ),
    "clap": Model(
        "ClapModel",
        Tower("audio_model", "audio_projection", "audio_encoder.layers", pool="mean"),
        Tower("text_model", "text_projection", "encoder.layer", finish=("pooler",)),
        scale="logit_scale_a",
    ),
}
"""The dual encoders of transformers, by the model_type of their configuration."""
