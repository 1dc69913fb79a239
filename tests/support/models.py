"""Small random models of every family, and the naive formula that all fast paths are checked against."""

from collections.abc import Callable

import open_clip
import torch
from torch import Tensor, nn
from torch.func import jacrev

import secondsight as ss

VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 64, "width": 24, "heads": 3, "layers": 3}
START, END = 62, 63


def clip(
    dtype: torch.dtype = torch.float64, *, seed: int = 0, quick_gelu: bool = False, vision=(), text=()
) -> nn.Module:
    """A CLIP with towers of three blocks; `vision` and `text` change their configurations."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(16, {**VISION, **dict(vision)}, {**TEXT, **dict(text)}, quick_gelu=quick_gelu)
    _sharpen(model)
    return model.eval().to(dtype)


def resnet(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """A CLIP whose image tower is a ResNet of one block per stage, with batch norms that do something."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
    model = clip(dtype, seed=seed, vision=vision)
    for module in model.visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


def small(size: int = 32, dtype: torch.dtype = torch.float64) -> ss.DualEncoder:
    """A model that takes photographs and captions: sixteen patches, or four at size 16."""
    host = clip(dtype, vision={"image_size": size}, text={"context_length": 24, "vocab_size": 49408})
    preprocess = open_clip.image_transform(size, is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    return ss.wrap(host, lambda image: preprocess(image).to(dtype), tokenizer)


def _sharpen(model: nn.Module) -> None:
    """Default initialisation makes nearly linear models with flat attention, on which any formula would agree."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "embedding" not in name:
            parameter.data.mul_(2.5)
        elif parameter.ndim == 1 and name.endswith("bias"):
            parameter.data.normal_(0, 0.3)
        elif parameter.ndim == 1 and "ls_" in name:
            parameter.data.uniform_(0.5, 1.5)
    if hasattr(model, "text_projection") and isinstance(model.text_projection, Tensor):
        model.token_embedding.weight.data.mul_(30)
        model.positional_embedding.data.mul_(30)


def pixels(size: int = 32, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """A random image as the model takes it."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tokens(*ids: int, length: int = 12) -> Tensor:
    """A text of these token ids between start and end, padded to `length`."""
    ids = ids or (5, 17, 3, 42, 8)
    row = [START, *ids, END]
    return torch.tensor([row + [0] * (length - len(row))])


def mlp_mixer(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A module of no known family: tokens mixed over positions and channels, then averaged."""
    torch.manual_seed(3)

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.across, self.along = nn.Linear(9, 9), nn.Linear(10, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = x + torch.tanh(self.across(x.mT)).mT
            return x + torch.nn.functional.gelu(self.along(x))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 10, 8, 8)
            self.blocks = nn.Sequential(Mix(), Mix())
            self.norm, self.out = nn.LayerNorm(10), nn.Linear(10, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(self.blocks(self.embed(x).flatten(2).mT)).mean(1))

    return Mixer().eval().to(dtype)


def naive(head: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
    """U_i = Σ_n w_n Σ_d (∂g/∂x_id)(x_r + α_n δ) δ_id with whole Jacobians, one node after the other."""
    delta = end - start
    total = torch.zeros(len(start), head(start[None]).shape[-1], dtype=start.dtype)
    for alpha, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        jacobian = jacrev(lambda x: head(x[None])[0])(start + alpha * delta)
        total += weight * torch.einsum("kpd,pd->pk", jacobian, delta)
    return total


def paths(side, prepared, **options):
    """The method's own path for one input, with its rule, as the engine sees it."""
    from secondsight.support.guard import untouched

    method = ss.IntegratedJacobian(**options)
    with untouched(side.encoder.module):
        return next(method._integrals(side, [prepared]))
