"""sentence-transformers models around a dual encoder of transformers, such as CLIP: images and texts as the two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn

from secondsight.encoders.families.sentence_transformers.sides import Agreement, kind_of
from secondsight.encoders.families.transformers.models import wrap_hub
from secondsight.encoders.host import HostEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_OTHERS = ("image", "audio")


def is_multimodal(parts: Sequence[Any]) -> bool:
    """Whether the first module takes more than texts, each kind by a function of its own."""
    config = getattr(parts[0], "modality_config", {})
    return any(config.get(kind, {}).get("method", "forward") != "forward" for kind in _OTHERS)


def wrap_multimodal(
    model: SentenceTransformer, parts: Sequence[nn.Module], prompts: tuple[str, str], *, cosine: bool, name: str
) -> DualEncoder:
    """The dual encoder within the first module, compared as the host does it; texts come with the prompt.

    Raises `InputError` for a model that is no known dual encoder, and for modules that change its embeddings.
    """
    transformer: Any = parts[0]
    if len(parts) > 1:
        kinds = ", ".join(map(kind_of, parts[1:]))
        raise InputError(
            f"{kinds} changes the embeddings of {kind_of(transformer.auto_model)}: describe both sides with ss.TorchEncoder"
        )
    if prompts[0] != prompts[1]:
        raise InputError(
            f"texts may be queries ({prompts[0]!r}) or documents ({prompts[1]!r}) here, as images are neither: choose one "
            "prompt for all with prompts='…'"
        )
    inner = wrap_hub(transformer.auto_model, transformer.processor, name=name)
    image, text = inner.left.encoder, inner.right.encoder
    assert isinstance(image, HostEncoder)
    assert isinstance(text, HostTextEncoder)
    tokens: Any = text.tokens
    tokens.prompt = text.prompt = prompts[0]
    # The host pads a text only where it is asked to.
    options = (getattr(transformer, "processing_kwargs", None) or {}).get("text", {})
    tokens.pad_to = tokens.context if options.get("padding") == "max_length" else None
    image.kept = text.kept = getattr(model, "truncate_dim", None)
    dual = DualEncoder(
        image,
        text,
        name=name,
        cosine=cosine,
        logit_scale=lambda: inner.logit_scale,
        logit_bias=lambda: inner.logit_bias,
    )
    Agreement(model, text, text, cosine=cosine, name=name).check()
    if image.kind == "image":
        picture = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
        Agreement(model, text, image, cosine=cosine, name=name, pair=("two dogs play", picture)).check()
    return dual
