"""`TorchEncoder` around modules as people have them: compiled, recurrent, channels first, with tokenizers of any kind."""

import pytest
import timm
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

import secondsight as ss
from models import clip, mlp_mixer, pixels, tokens
from secondsight.testing import changed, check_encoder, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:the model does not say:secondsight.AssumptionWarning")

IDS = torch.tensor([[90, 5, 6, 91]])


def beside_images(encoder: ss.TorchEncoder, dtype: torch.dtype = torch.float64) -> ss.DualEncoder:
    return ss.DualEncoder(ss.wrap(clip(dtype)).left.encoder, encoder)


class Words(nn.Module):
    """Token ids to embeddings by a recurrent network."""

    def __init__(self, kind: type[nn.RNNBase], **options) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.mix = kind(16, 12, batch_first=True, **options)
        self.out = nn.Linear(24 if options.get("bidirectional") else 12, 16)

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.table(ids))

    def read(self, embedded: Tensor) -> Tensor:
        return self.out(self.mix(embedded)[0].mean(1))


def recurrent(kind: type[nn.RNNBase], **options) -> Words:
    torch.manual_seed(0)
    return Words(kind, **options).eval()


@pytest.mark.parametrize("by", ["layers", "functions"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(nn.LSTM, {}), (nn.LSTM, {"bidirectional": True}), (nn.GRU, {})],
)
def test_recurrent_networks_on_processors(kind, options, by):
    words = recurrent(kind, **options)
    given = {"module": words, "layers": "mix"} if by == "layers" else {"features": words.table, "head": words.read}
    model = beside_images(ss.TorchEncoder(kind="text", padding=0, **given), torch.float32)
    precise = beside_images(ss.TorchEncoder(recurrent(kind, **options).double(), "mix", kind="text", padding=0))
    before, enabled = snapshot(words), torch.backends.mkldnn.enabled
    with torch.no_grad():
        host = words(IDS)[0]
    assert torch.allclose(model.right.embed([IDS])[0], host, atol=1e-6)
    for method in (ss.IntegratedJacobian(layer=0, steps=4), ss.ChainedJacobian(layer=0)):
        c, exact = (m.right.contributions([IDS], method)[0] for m in (model, precise))
        assert torch.allclose(c.embedding, host, atol=1e-6)
        assert torch.allclose(c.vectors.double(), exact.vectors, atol=1e-5)
    assert torch.backends.mkldnn.enabled is enabled
    assert changed(before, snapshot(words)) == []


def test_an_operation_without_a_forward_derivative_is_named():
    class Packed(Words):
        def read(self, embedded):
            lengths = torch.full((len(embedded),), embedded.shape[1])
            packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True)
            return self.out(nn.utils.rnn.pad_packed_sequence(self.mix(packed)[0], batch_first=True)[0].mean(1))

    words = Packed(nn.LSTM)
    encoder = ss.TorchEncoder(features=words.table, head=words.read, kind="text", padding=0)
    with pytest.raises(
        ss.InputError, match="no forward derivative of the operation _pack_padded_sequence.*later layer"
    ):
        beside_images(encoder, torch.float32).right.contributions([IDS], ss.IntegratedJacobian(layer=0))


def test_a_method_as_head_brings_its_module_into_evaluation_mode():
    class Dropped(Words):
        def read(self, embedded):
            return super().read(nn.functional.dropout(embedded, 0.5, self.training))

    words = Dropped(nn.GRU).double().train()
    encoder = ss.TorchEncoder(features=words.table, head=words.read, kind="text", padding=0)
    check_encoder(beside_images(encoder).right, [IDS], host=lambda ids: words.eval()(ids)[0])


@pytest.mark.parametrize(
    ("wrapping", "prefix"),
    [
        (lambda module: torch.compile(module, backend="eager"), "_orig_mod."),
        (nn.DataParallel, "module."),
        (nn.DataParallel, ""),
    ],
)
def test_modules_inside_others(wrapping, prefix):
    module = mlp_mixer()
    wrapped = wrapping(module)

    def explained(described: nn.Module, layer) -> Tensor:
        encoder = ss.TorchEncoder(described, [layer], mean=(0.5,) * 3, std=(0.5,) * 3, grid=(3, 3))
        model = ss.DualEncoder(encoder, ss.wrap(clip()).right.encoder)
        return ss.explain(model, pixels(24), tokens(), ss.IntegratedJacobian(steps=3)).matrix

    expected = explained(module, "blocks.1")
    before = snapshot(wrapped)
    assert torch.equal(explained(wrapped, f"{prefix}blocks.1"), expected)
    assert torch.equal(explained(wrapped, module.blocks[1]), expected)
    assert changed(before, snapshot(wrapped)) == []
    module.blocks[1] = torch.compile(module.blocks[1], backend="eager")
    for layer in ("blocks.1", "blocks.1._orig_mod", module.blocks[1]):
        assert torch.equal(explained(module, layer), expected)


def test_a_module_that_cannot_be_explained():
    script = torch.export.export(mlp_mixer(), (pixels(24),)).module()
    with pytest.raises(ss.InputError, match="is a graph whose layers cannot be watched"):
        ss.TorchEncoder(script, ["blocks"])


class Points(nn.Module):
    """Point clouds (batch, 3, point) to embeddings, by convolutions of width one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 12, 1), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))).mean(2))


@pytest.mark.parametrize("layer", [0, 1, "input"])
@pytest.mark.parametrize("by", ["layers", "functions"])
def test_point_clouds_with_their_channels_first(by, layer):
    torch.manual_seed(0)
    points, cloud = Points().double(), torch.randn(1, 3, 7, dtype=torch.float64)
    options: dict = {"module": points, "layers": ["first", "second"]}
    if by == "functions":
        layer = min(layer, 0) if layer != "input" else layer
        options = {"features": lambda x: x, "head": points, "module": points, "channels_first": True}
    encoder = ss.TorchEncoder(kind="points", reference=torch.zeros_like, **options)
    side = beside_images(encoder).right
    check_encoder(side, [cloud, torch.randn(1, 3, 5, dtype=torch.float64)])
    c = side.contributions([cloud], ss.ChainedJacobian(layer=layer))[0]
    assert c.vectors.shape == (7, 16)
    # Points are averaged, so each one's contribution is what it does alone.
    with torch.no_grad():
        alone = [(points(cloud[..., i : i + 1]) - points(cloud[..., i : i + 1] * 0))[0] / 7 for i in range(7)]
    assert torch.allclose(c.vectors, torch.stack(alone), atol=1e-10)


def test_token_ids_are_no_layer():
    encoder = ss.TorchEncoder(recurrent(nn.GRU), "table", kind="text", padding=0)
    with pytest.raises(ss.AdapterError, match="takes int64 numbers such as token ids.*takes their embeddings"):
        ss.explain(beside_images(encoder, torch.float32), pixels(dtype=torch.float32), IDS)


class Masked(nn.Module):
    """Token ids and a mask to the mean over what the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.out = nn.Embedding(100, 16), nn.Linear(16, 12), nn.Linear(12, 16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = torch.tanh(self.mix(self.table(input_ids)))
        mask = (torch.ones_like(input_ids) if attention_mask is None else attention_mask)[..., None]
        return self.out((x * mask).sum(1) / mask.sum(1))


@pytest.mark.parametrize("kind", [dict, transformers.BatchEncoding])
@pytest.mark.parametrize("lists", [False, True])
def test_tokenizers_that_give_dictionaries(kind, lists):
    torch.manual_seed(0)
    module = Masked().double()
    ids, mask = torch.tensor([[90, 5, 6, 91, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])

    def tokenizer(text: str):
        return kind({"input_ids": ids.tolist(), "attention_mask": mask.tolist()} if lists else
                    {"input_ids": ids, "attention_mask": mask})  # fmt: skip

    side = beside_images(ss.TorchEncoder(module, "mix", kind="text", padding=0, tokenizer=tokenizer)).right
    with torch.no_grad():
        host = module(ids, mask)
    for given in ("a dog", tokenizer("a dog")):
        assert torch.allclose(side.embed([given]), host, atol=1e-12)
        assert len(side.contributions([given])[0].vectors) == 4


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
def test_what_a_tokenizer_or_a_module_leaves_out_is_said():
    module = Masked().double()
    side = beside_images(ss.TorchEncoder(module, "mix", kind="text", tokenizer=lambda text: {"tokens": IDS})).right
    with pytest.raises(ss.InputError, match="output with tokens has no token ids: 'ids' or 'input_ids' is needed"):
        side.embed(["a dog"])

    class OfDictionaries(Masked):
        def forward(self, batch):
            return super().forward(batch["input_ids"], batch["attention_mask"])

    class Needing(Masked):
        def forward(self, input_ids, attention_mask):
            return super().forward(input_ids, attention_mask)

    for kind in (OfDictionaries, Needing):
        side = beside_images(ss.TorchEncoder(kind().double(), "mix", kind="text", padding=0)).right
        with pytest.raises(
            ss.InputError, match=rf"{kind.__name__} cannot be called with one tensor \(1, 4\) .*input_ids=x"
        ):
            side.embed([IDS])


class Ended(nn.Module):
    """Reads what a causal model sees up to the first end token, id 91."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.out = nn.Embedding(100, 16), nn.Linear(16, 12), nn.Linear(12, 16)

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.table(ids))).cumsum(1)
        return torch.tanh(self.out(x[torch.arange(len(x)), (ids == 91).int().argmax(-1)]))


@pytest.mark.parametrize("padding", [91, 0])
def test_padding_that_is_the_end_token(padding):
    torch.manual_seed(0)
    module = Ended().double()
    ids = torch.tensor([[90, 5, 6, 7, 91, *[padding] * 3]])
    encoder = ss.TorchEncoder(module, ["mix"], kind="text", padding=padding)
    side = beside_images(encoder).right
    check_encoder(side, [ids, torch.tensor([[90, 8, 91, *[padding] * 5]])], host=lambda x: module(x)[0])
    vectors = side.contributions([ids], ss.ChainedJacobian(layer=0))[0].vectors
    # Behind the end nothing is read, and the reference is read where the input is.
    assert vectors[1:4].abs().sum(1).min() > 1e-3
    assert vectors[5:].abs().max() == 0


def hub_tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {w: i for i, w in enumerate(["<s>", "</s>", "<unk>", "a", "dog", "on", "grass"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def test_a_tokenizer_of_transformers_whose_padding_is_its_end():
    torch.manual_seed(0)
    module, tokenizer = Masked().double(), hub_tokenizer()
    model = beside_images(ss.TorchEncoder(module, "mix", kind="text", tokenizer=tokenizer))
    encoding = tokenizer("a dog on grass", padding="max_length", max_length=9, return_tensors="pt")
    with torch.no_grad():
        host = module(encoding["input_ids"], encoding["attention_mask"])
    for given in ("a dog on grass", encoding):
        assert torch.allclose(model.right.embed([given]), host, atol=1e-12)
    e = ss.explain(model, pixels(), "a dog on grass")
    assert e["dog"].shape == (4, 4)
    assert e.right_layout.special == {0: "start", 5: "end"}
    assert e.matrix[:, [0, 5]].abs().max() == 0
    assert e.error < 1e-6


def test_relus_that_do_not_see_the_input_change_nothing():
    class Placed(nn.Module):
        """Attention with a bias that a small network makes of relative positions."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Linear(5, 8), nn.Linear(8, 16)
            self.bias = nn.Sequential(nn.Linear(1, 6), nn.ReLU(), nn.Linear(6, 1))

        def forward(self, x):
            places = torch.arange(x.shape[1], dtype=x.dtype)
            x = self.embed(x)
            bias = self.bias((places[:, None] - places)[..., None])[..., 0]
            return self.out(((x @ x.mT + bias).softmax(-1) @ x).mean(1))

    torch.manual_seed(0)
    encoder = ss.TorchEncoder(Placed().double(), "embed", kind="series", reference=torch.zeros_like)
    side, series = beside_images(encoder).right, torch.randn(1, 6, 5, dtype=torch.float64)
    average, pointwise = (
        side.contributions([series], ss.IntegratedJacobian(layer=0, steps=5, kinks=kinks))[0].vectors
        for kinks in ("average", "pointwise")
    )
    assert torch.allclose(average, pointwise, atol=1e-12)
    check_encoder(side, [series])


def test_swin_v2_with_averaged_slopes_and_its_channels_last():
    torch.manual_seed(0)
    options = {
        "img_size": 64,
        "window_size": 4,
        "embed_dim": 8,
        "depths": (1, 1),
        "num_heads": (1, 2),
        "num_classes": 16,
    }
    tower = timm.create_model("swinv2_tiny_window8_256", **options).double().eval()
    encoder = ss.TorchEncoder(tower, ["layers.0", "layers.1"], mean=[0.5] * 3, std=[0.5] * 3, channels_last=True)
    side = ss.DualEncoder(encoder, ss.wrap(clip()).right.encoder).left
    for method, missed in ((ss.IntegratedJacobian(layer=1, steps=8), 1e-3), (ss.ChainedJacobian(layer=1), 1e-10)):
        (c,) = side.contributions([pixels(64)], method)
        assert c.layout.grid == (16, 16)
        difference = c.embedding - c.reference_embedding
        assert (difference - c.vectors.sum(0)).norm() < missed * difference.norm()
