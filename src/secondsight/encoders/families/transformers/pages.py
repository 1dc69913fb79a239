"""Page retrieval models of transformers: ColPali, ColQwen2, ColModernVBert. A page is an image, a query is a text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import States
from secondsight.encoders.families.transformers.encoders import require_readable_sizes
from secondsight.encoders.families.transformers.page_queries import QueryEncoder
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.encoders.late_model import LateInteraction
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, grid_layout
from secondsight.inputs.prepared import Placement, Prepared
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_TEMPLATE = ("input_ids", "attention_mask", "token_type_ids")
"""What a processor says of a page besides its pixels, as far as the models read it."""

Size = tuple[int, int]
Tiles = tuple[int, int, int, int]
"""Rows and columns of tiles, and of positions within each tile."""


def page_order(tiles: Tiles) -> Tensor:
    """The places of a page's cells, row by row, in a sequence that goes through it tile by tile."""
    rows, columns, inner_rows, inner_columns = tiles
    places = torch.arange(rows * columns * inner_rows * inner_columns)
    return places.reshape(tiles).permute(0, 2, 1, 3).flatten()


class PageEncoder(LateInteractionEncoder):
    """Pages: image tokens within a prompt, through the blocks of a vision tower and those of a language model.

    Positions that show the page are in its reading order, whatever the host's; the prompt's keep their places. The
    model-ready input is one picture (1, 3, height, width), below the page what else the model sees of it.
    """

    kind = "image"
    role = "document"
    references = IMAGE_REFERENCES
    vision_path: str
    language_path = "vlm.language_model.layers"
    vision_has_batch = True

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__(model)
        self.processor, self.config = processor, model.config.vlm_config
        self.vision_depth = len(list(model.get_submodule(self.vision_path).children()))
        self._templates: dict[Size, dict[str, Tensor]] = {}
        self.images = ImageInput(lambda image: self.page_part(self.pixels(image)))

    @abstractmethod
    def pixels(self, image: Image.Image) -> Tensor:
        """What the processor makes of a page, as one picture (3, height, width)."""

    @abstractmethod
    def tiles(self, size: Size, vision: bool) -> Tiles:
        """How the page is split at the vision tower's blocks, or at the language model's, for a picture of this size."""

    @abstractmethod
    def image_features(self, module: Any, tensors: Tensor) -> Tensor:
        """What the vision tower puts in the places of the image tokens: (batch, image token, width)."""

    def page_size(self, size: Size) -> Size:
        """The (height, width) of the page in a picture of this size."""
        return size

    def page_part(self, picture: Tensor) -> Tensor:
        """The part of a picture that shows the page."""
        return picture[..., : self.page_size(_size(picture))[0], :]

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The vision tower's blocks, then the language model's."""
        return [
            block for path in (self.vision_path, self.language_path) for block in module.get_submodule(path).children()
        ]

    def token_vectors(self, module: Any, tensors: Tensor) -> Tensor:
        """See `LateInteractionEncoder.token_vectors`; every position is compared."""
        size = _size(tensors)
        prompt = {name: ids.to(tensors.device).expand(len(tensors), -1) for name, ids in self.template(size).items()}
        ids, image = prompt.pop("input_ids"), self._image_positions(size, self.depth)
        # Merged here as the host does, whose own way has no batching rule: the image's features take their tokens' places.
        embedded = module.vlm.get_input_embeddings()(ids.where(ids != self.config.image_token_id, 0))
        places = torch.arange(ids.shape[1])
        places[image] = ids.shape[1] + torch.arange(len(image))
        merged = torch.cat([embedded, self.image_features(module, tensors).to(embedded)], 1)[:, places]
        vectors: Tensor = module(input_ids=None, inputs_embeds=merged, **prompt).embeddings
        return vectors[:, self.host_order(tensors)]

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A page as the processor prepares it, or a model-ready picture (1, 3, height, width) of a size that it gives."""
        prepared = self.images.prepare(raw)
        if isinstance(raw, Tensor):
            self.template(_size(prepared.tensor))
            return prepared
        assert isinstance(prepared.display, Image.Image)  # images are shown as such
        picture = self.pixels(prepared.display)[None]
        x0, y0, x1, y1 = prepared.placement.frame
        size = _size(picture)
        below = (y1 - y0) * (size[0] / self.page_size(size)[0] - 1)
        placement = Placement(prepared.placement.image_size, (x0, y0, x1, y1 + below))
        return Prepared(picture, prepared.display, placement)

    def reference(self, prepared: Prepared, choice: Any, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        if choice is not None and not isinstance(choice, (str, Tensor)):
            choice = self.prepare(choice).tensor
        return self.images.reference(prepared, choice, seed)

    def template(self, size: Size) -> dict[str, Tensor]:
        """Token ids (1, position) and masks around a page of this size; `InputError` where no page has it."""
        if size not in self._templates:
            height, width = self.page_size(size)
            blank = Image.new("RGB", (width, height))
            if _size(self.pixels(blank)) != size:
                raise InputError(
                    f"pixels of {size[0]}×{size[1]} are not a size that this model's processor gives a page"
                )
            features = self.processor.process_images([blank])
            self._templates[size] = {name: features[name] for name in _TEMPLATE if name in features}
        return self._templates[size]

    def for_preparing(self) -> PageEncoder:
        """See `Encoder.for_preparing`."""
        encoder: PageEncoder = super().for_preparing()  # type: ignore[assignment]  # a copy of this one
        # The function of this encoder would take its weights along.
        encoder.images.preprocess = lambda image: encoder.page_part(encoder.pixels(image))
        return encoder

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The page as a grid; special are the prompt, and tokens that show the whole page once more."""
        size = _size(prepared.tensor)
        rows, columns, inner_rows, inner_columns = self.tiles(size, layer < self.vision_depth)
        cells, image = rows * columns * inner_rows * inner_columns, self._image_positions(size, layer)
        special = dict.fromkeys(range(len(states.hidden)), "prompt")
        special |= dict.fromkeys(image[cells:].tolist(), "whole page")
        for position in image[:cells].tolist():
            del special[position]
        placement = prepared.placement
        x0, y0, x1, y1 = placement.frame
        bottom = y0 + (y1 - y0) * self.page_size(size)[0] / size[0]
        placement = Placement(placement.image_size, (x0, y0, x1, bottom))
        return grid_layout(placement, (rows * inner_rows, columns * inner_columns), dict(sorted(special.items())))

    def host_order(self, tensors: Tensor) -> Tensor:
        """Of every position of the token vectors its place in the host's sequence."""
        return self._order(_size(tensors), self.depth)

    def _image_positions(self, size: Size, layer: int) -> Tensor:
        """The host's positions that show the page, in its order."""
        if layer < self.vision_depth:
            return torch.arange(self.vision_positions(size))
        return (self.template(size)["input_ids"][0] == self.config.image_token_id).nonzero()[:, 0]

    def vision_positions(self, size: Size) -> int:
        """The number of all patches of a picture of this size."""
        rows, columns, inner_rows, inner_columns = self.tiles(size, True)
        return rows * columns * inner_rows * inner_columns

    def _order(self, size: Size, layer: int) -> Tensor:
        """The host's position of every position of ours."""
        image, order = self._image_positions(size, layer), page_order(self.tiles(size, layer < self.vision_depth))
        if len(image) < len(order):
            raise AdapterError(f"{len(image)} image tokens cannot hold the {len(order)} cells of a page")
        positions = torch.arange(len(image) if layer < self.vision_depth else self.template(size)["input_ids"].shape[1])
        positions[image[: len(order)]] = image[order]
        return positions

    def _from_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        if layer < self.vision_depth:
            # Some towers take the patches of a batch, or of a page's tiles, as one sequence or batch.
            hidden = hidden.reshape(len(tensors), -1, hidden.shape[-1])
        return hidden[:, self._order(_size(tensors), layer)]

    def _as_in_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        size = _size(tensors)
        hidden = hidden[:, self._order(size, layer).argsort()]
        if layer >= self.vision_depth:
            return hidden
        if not self.vision_has_batch:
            return hidden.flatten(0, 1)
        *_, inner_rows, inner_columns = self.tiles(size, True)
        return hidden.reshape(-1, inner_rows * inner_columns, hidden.shape[-1])


class ColPaliEncoder(PageEncoder):
    """Pages resized to one square; every patch is a token of the language model."""

    vision_path = "vlm.vision_tower.encoder.layers"

    def pixels(self, image: Image.Image) -> Tensor:
        """The resized page."""
        pixels: Tensor = self.processor.process_images([image])["pixel_values"][0]
        return pixels

    def tiles(self, size: Size, vision: bool) -> Tiles:
        """One tile of all patches."""
        patch = self.config.vision_config.patch_size
        return 1, 1, size[0] // patch, size[1] // patch

    def image_features(self, module: Any, tensors: Tensor) -> Tensor:
        """See `PageEncoder.image_features`."""
        features: Tensor = module.vlm.get_image_features(tensors).pooler_output
        return features


class ColQwen2Encoder(PageEncoder):
    """Pages of any shape; the language model's tokens are 2×2 patches, which the vision tower has next to one another."""

    vision_path = "vlm.visual.blocks"
    vision_has_batch = False

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        require_readable_sizes(model)
        super().__init__(model, processor)

    def pixels(self, image: Image.Image) -> Tensor:
        """The resized page, put together from the processor's patches."""
        features, vision = self.processor.process_images([image]), self.config.vision_config
        rows, columns = (int(n) for n in features["image_grid_thw"][0, 1:])
        merge, patch, times = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
        shape = rows // merge, columns // merge, merge, merge, -1, times, patch, patch
        patches: Tensor = features["pixel_values"].reshape(shape)[:, :, :, :, :, 0]
        return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(-1, rows * patch, columns * patch)

    def tiles(self, size: Size, vision: bool) -> Tiles:
        """Tiles of merged patches."""
        merge, patch = self.config.vision_config.spatial_merge_size, self.config.vision_config.patch_size
        inner = merge if vision else 1
        return size[0] // (merge * patch), size[1] // (merge * patch), inner, inner

    def image_features(self, module: Any, tensors: Tensor) -> Tensor:
        """See `PageEncoder.image_features`."""
        vision, (rows, columns, merge, _) = self.config.vision_config, self.tiles(_size(tensors), True)
        patch = vision.patch_size
        patches = tensors.unflatten(3, (columns, merge, patch)).unflatten(2, (rows, merge, patch))
        # (batch, channel, row, row in tile, y, column, column in tile, x); every page is its own next frame.
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        patches = patches.expand(*patches.shape[:6], vision.temporal_patch_size, patch, patch)
        grid = torch.tensor([[1, rows * merge, columns * merge]], device=tensors.device).expand(len(tensors), -1)
        features: Tensor = module.vlm.visual(patches.flatten(5).flatten(0, 4), grid_thw=grid).pooler_output
        return features.unflatten(0, (len(tensors), -1))


class ColModernVBertEncoder(PageEncoder):
    """Pages cut into square tiles, then the whole page in one more tile, which the picture has below the page."""

    vision_path = "vlm.vision_model.encoder.layers"
    language_path = "vlm.text_model.layers"

    def pixels(self, image: Image.Image) -> Tensor:
        """The tiles side by side, and below them the whole page as one tile."""
        features = self.processor.image_processor([[image]], return_tensors="pt", return_row_col_info=True)
        tiles, rows, columns = features["pixel_values"][0], features["rows"][0][0], features["cols"][0][0]
        if rows * columns == 0:
            return tiles[0]
        side = tiles.shape[-1]
        page = tiles[:-1].unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
        below = page.new_zeros(3, side, columns * side)
        below[..., :side] = tiles[-1]
        return torch.cat([page, below], 1)

    def tiles(self, size: Size, vision: bool) -> Tiles:
        """The tiles of the page, without the one of all of it."""
        height, width = self.page_size(size)
        vision_config = self.config.vision_config
        inner = (
            vision_config.image_size // vision_config.patch_size // (1 if vision else self.config.pixel_shuffle_factor)
        )
        return height // vision_config.image_size, width // vision_config.image_size, inner, inner

    def page_size(self, size: Size) -> Size:
        """All but the tile of the whole page."""
        side = self.config.vision_config.image_size
        return size if size[0] <= side else (size[0] - side, size[1])

    def vision_positions(self, size: Size) -> int:
        """The patches of all tiles."""
        rows, columns, inner, _ = self.tiles(size, True)
        return (rows * columns + (size != self.page_size(size))) * inner**2

    def reference(self, prepared: Prepared, choice: Any, seed: int) -> Tensor:
        """See `ImageInput.reference`, for the page and for the tile of all of it each by itself."""
        if choice is not None and not isinstance(choice, str):
            return super().reference(prepared, choice, seed)
        picture = prepared.tensor
        height, side = self.page_size(_size(picture))[0], self.config.vision_config.image_size
        reference = picture.clone()
        for part in ((slice(height), slice(None)), (slice(height, None), slice(side))):
            if picture[(..., *part)].numel():
                shown = Prepared(picture[(..., *part)], prepared.display, prepared.source)
                reference[(..., *part)] = super().reference(shown, choice, seed)
        return reference

    def image_features(self, module: Any, tensors: Tensor) -> Tensor:
        """See `PageEncoder.image_features`."""
        size, side = _size(tensors), self.config.vision_config.image_size
        rows, columns, *_ = self.tiles(size, True)
        page = self.page_part(tensors).unflatten(3, (columns, side)).unflatten(2, (rows, side))
        tiles = page.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        if size != self.page_size(size):
            tiles = torch.cat([tiles, tensors[:, None, :, -side:, :side]], 1)
        # The host's own function drops tiles of zeros, which are grey ones here.
        states = module.vlm.vision_model(pixel_values=tiles.flatten(0, 1)).last_hidden_state
        features: Tensor = module.vlm.connector(states)
        return features.unflatten(0, (len(tensors), -1)).flatten(1, 2)


ENCODERS: dict[str, type[PageEncoder]] = {
    "ColPaliForRetrieval": ColPaliEncoder,
    "ColQwen2ForRetrieval": ColQwen2Encoder,
    "ColModernVBertForRetrieval": ColModernVBertEncoder,
}
"""The page encoders by the model class of transformers."""


def wrap_pages(
    model: PreTrainedModel,
    processor: ProcessorMixin | None,
    name: str,
    score: Callable[[str, Image.Image], float] | None = None,
) -> LateInteraction:
    """A page retrieval model and its processor; the left side takes pages, the right side queries.

    `score` is the host's own similarity of a query and a page, by default what the processor makes of the model's vectors.
    Raises `InputError` without the model's own processor.
    """
    if processor is None or not hasattr(processor, "process_images") or not hasattr(processor, "score_retrieval"):
        raise InputError(
            f"{type(model).__name__} reads pages and queries within prompts: pass its own processor, "
            "ss.wrap(model, AutoProcessor.from_pretrained(…))"
        )
    pages = ENCODERS[type(model).__name__](model, processor)
    queries = QueryEncoder(model, processor, pages.language_path)
    # Both encoders are the same module: a copy in another precision serves both.
    queries._copies = pages._copies

    def processor_score(query: str, page: Image.Image) -> float:
        with untouched(model):
            features = (processor.process_queries([query]), processor.process_images([page]))
            vectors = [model(**batch.to(model.device, model.dtype)).embeddings for batch in features]
            return float(processor.score_retrieval(*vectors)[0, 0])

    def host_similarity(query: Prepared, document: Prepared) -> float | None:
        page, text = document.display, query.display
        if not isinstance(page, Image.Image) or not isinstance(text, str):
            return None
        if not torch.equal(pages.prepare(page).tensor, document.tensor):
            return None  # pixels that the user prepared
        return (score or processor_score)(text, page)

    return LateInteraction(pages, queries, name=name, host=host_similarity)


def _size(tensors: Tensor) -> Size:
    height, width = tensors.shape[-2:]
    return height, width
