"""Models inside other objects: compiled, parallel, adapted, held by another module; explained as the bare model is."""

from collections.abc import Callable
from functools import cache

import open_clip
import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import secondsight as ss
import vocabularies
from families import FAMILIES, photographs
from models import clip, pixels, tokens
from secondsight.testing import changed, snapshot

METHODS = [
    ss.IntegratedJacobian(layer=-1),
    ss.IntegratedJacobian(layer=1, steps=4),
    ss.ChainedJacobian(layer="input"),
]
pytestmark = pytest.mark.filterwarnings("ignore:the model does not say:secondsight.AssumptionWarning")


class Holder(nn.Module):
    """A module that trains or serves others."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_in_place(model: nn.Module) -> nn.Module:
    for part in (model, model.visual, model.visual.transformer, model.transformer.resblocks[0]):
        part.compile(backend="eager")
    return model


def compiled_parts(model: nn.Module) -> nn.Module:
    model.visual = compiled(model.visual)
    model.transformer.resblocks[1] = compiled(model.transformer.resblocks[1])
    return model


def compiled_methods(model: nn.Module) -> nn.Module:
    model.visual.forward = torch.compile(model.visual.forward, backend="eager")
    model.encode_text = torch.compile(model.encode_text, backend="eager")
    return model


def checkpointed(model: nn.Module) -> nn.Module:
    model.visual.transformer.resblocks[1] = checkpoint_wrapper(model.visual.transformer.resblocks[1])
    return model


WRAPPINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.compile": compiled,
    "compiled in place": compiled_in_place,
    "compiled parts": compiled_parts,
    "compiled methods": compiled_methods,
    "data parallel": nn.DataParallel,
    "averaged weights": lambda model: torch.optim.swa_utils.AveragedModel(model),
    "checkpointed": checkpointed,
    "holder": lambda model: Holder(model=model, loss=nn.Identity()),
    "holder of a compiled parallel model": lambda model: Holder(net=Holder(clip=compiled(nn.DataParallel(model)))),
}


def state(model: nn.Module) -> list[dict[str, object]]:
    """All that belongs to the modules themselves: hooks, patches, compiled calls, parts."""
    return [{k: dict(v) if isinstance(v, dict) else v for k, v in vars(m).items()} for m in model.modules()]


@cache
def expected_explanations() -> list[ss.Explanation]:
    model = ss.wrap(clip())
    return [ss.explain(model, pixels(), tokens(), method) for method in METHODS]


def assert_explained_as_bare(wrapped: nn.Module) -> None:
    """The same numbers as the bare `clip()`, and the object as it was."""
    before, parts = snapshot(wrapped), state(wrapped)
    model = ss.wrap(wrapped)
    assert model.name == "CLIP"
    for method, expected in zip(METHODS, expected_explanations(), strict=True):
        e = ss.explain(model, pixels(), tokens(), method)
        assert torch.allclose(e.matrix, expected.matrix, atol=1e-12)
        assert e.similarity == pytest.approx(expected.similarity, abs=1e-12)
    assert changed(before, snapshot(wrapped)) == []
    for old, new in zip(parts, state(wrapped), strict=True):
        assert old.keys() == new.keys()
        assert all(old[key] is new[key] or old[key] == new[key] for key in old)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrapped_models_are_explained_as_bare_ones(name):
    assert_explained_as_bare(WRAPPINGS[name](clip()))


def test_compiled_code_that_ran_is_left_compiled():
    model = clip()
    runs: list[Callable] = []

    def backend(graph, inputs):
        return lambda *values: (runs.append(graph), graph(*values))[1]

    model.visual.compile(backend=backend)
    image = pixels()
    expected = model.encode_image(image)
    assert len(runs) == 1
    assert_explained_as_bare(model)
    assert len(runs) == 1
    assert torch.equal(model.encode_image(image), expected)
    assert len(runs) == 2


@pytest.fixture
def processes(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_models_are_explained_as_bare_ones(processes):
    assert_explained_as_bare(nn.parallel.DistributedDataParallel(clip()))


def test_weights_spread_over_processes_are_refused(processes):
    model = clip()
    torch.distributed.fsdp.fully_shard(model.visual.transformer)
    with pytest.raises(ss.InputError, match=r"FSDPTransformer 'visual.transformer' spreads .*gather them"):
        ss.wrap(model)


@pytest.mark.parametrize(("family", "layer"), [("hf-clip", 1), ("hf-clip", -1), ("st-minilm-mean", 1)])
def test_compiled_models_of_hub_libraries(family, layer):
    example = FAMILIES[family](torch.float64)
    method = ss.IntegratedJacobian(layer=layer, steps=3)
    model = ss.wrap(compiled(example.host), *example.parts)
    a, b = example.left[0], example.right[1]
    expected = ss.explain(example.model, a, b, method).matrix
    assert torch.allclose(ss.explain(model, a, b, method).matrix, expected, atol=1e-12)


class Adapted(nn.Module):
    """A linear layer and a correction of rank two beside it, named as in PEFT."""

    __module__ = "peft.tuners.lora.layer"

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.merged = base, False
        self.lora_A, self.lora_B = (
            nn.Linear(base.in_features, 2, bias=False),
            nn.Linear(2, base.out_features, bias=False),
        )

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor:
        return self.base_layer.bias

    def merge(self) -> None:
        self.base_layer.weight.data += self.lora_B.weight.data @ self.lora_A.weight.data
        self.merged = True

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) if self.merged else self.base_layer(x) + self.lora_B(self.lora_A(x))


class LoraModel(Holder):
    """Hands everything on to the model inside, as PEFT's tuners do."""

    __module__ = "peft.tuners.lora.model"
    inside = "model"

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(self.inside), name)


class PeftModel(LoraModel):
    __module__ = "peft.peft_model"
    inside = "base_model"


def adapted(model: nn.Module, *names: str) -> nn.Module:
    """The model inside a look-alike of PEFT, with adapters at the linear layers of these names."""
    torch.manual_seed(1)
    for path, part in list(model.named_modules()):
        if isinstance(part, nn.Linear) and path.rpartition(".")[2] in names:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, Adapted(part).to(part.weight))
    return PeftModel(base_model=LoraModel(model=model))


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("method", [METHODS[0], ss.ChainedJacobian(layer=1)])
def test_adapters_are_explained_as_they_are(merged, method):
    host = clip()
    model = adapted(host, "c_fc", "c_proj")
    unadapted = clip().encode_image(pixels())
    for part in host.modules():
        if merged and isinstance(part, Adapted):
            part.merge()
    with torch.no_grad():
        a, b = host.encode_image(pixels()), host.encode_text(tokens())
    before = snapshot(model)
    e = ss.explain(ss.wrap(model), pixels(), tokens(), method)
    assert not torch.allclose(a, unadapted, atol=1e-3)
    assert e.similarity == pytest.approx(float(torch.cosine_similarity(a, b)), abs=1e-10)
    assert e.error < 1e-2
    assert changed(before, snapshot(model)) == []


def test_adapters_in_a_transformers_model():
    example = FAMILIES["hf-clip"](torch.float64)
    unadapted = ss.explain(example.model, example.left[0], example.right[0]).similarity
    model = adapted(example.host, "q_proj", "v_proj", "fc1")
    with torch.no_grad():
        a, b = example.host_left(example.left[0]), example.host_right(example.right[0])
    for method in (METHODS[0], ss.ChainedJacobian(layer=1)):
        e = ss.explain(ss.wrap(model, *example.parts), example.left[0], example.right[0], method)
        assert e.similarity == pytest.approx(float(torch.cosine_similarity(a, b, dim=-1)), abs=1e-6)
        assert abs(e.similarity - unadapted) > 1e-3
        assert e.error < 1e-2


def test_learned_prompts_are_refused():
    with pytest.raises(ss.InputError, match="PeftModel puts learned prompts before its inputs.*TorchEncoder"):
        ss.wrap(PeftModel(base_model=clip(), prompt_encoder=nn.Linear(2, 2)))


def test_what_a_holder_adds_is_said():
    model = clip()
    with pytest.warns(ss.AssumptionWarning, match=r"Holder is explained by its net.clip \(CLIP\) alone, without head:"):
        dual = ss.wrap(Holder(net=Holder(clip=model), head=nn.Linear(3, 3)))
    expected = ss.explain(ss.wrap(model), pixels(), tokens()).matrix
    assert torch.equal(ss.explain(dual, pixels(), tokens()).matrix, expected)


def test_a_holder_of_several_models_names_them():
    with pytest.raises(ss.InputError, match=r"student \(CLIP\), teacher \(CLIP\): .*ss.wrap\(model.student\)"):
        ss.wrap(Holder(student=clip(), teacher=nn.DataParallel(clip(seed=1))))
    with pytest.raises(ss.InputError, match=r"as in ss.wrap\(model\.pair\[0\]\)"):
        ss.wrap(Holder(pair=nn.ModuleList([clip(), clip(seed=1)])))
    model = clip()
    ss.wrap(Holder(forward_module=nn.DataParallel(model), original_module=model))
    tower = FAMILIES["hf-clip"](torch.float64).host.text_model
    with pytest.raises(ss.InputError, match="of Holder only text could be explained, but CLIPTextModel "):
        ss.wrap(Holder(text=tower, head=nn.Linear(2, 2)))
    with pytest.raises(ss.InputError, match="Holder is not a model that secondsight knows"):
        ss.wrap(Holder(first=nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_scripted_and_exported_models_are_refused():
    model = clip(torch.float32)
    graph = torch.export.export(model.visual, (pixels(dtype=torch.float32),))
    with pytest.raises(ss.InputError, match="cannot wrap ExportedProgram: give the model"):
        ss.wrap(graph)
    with pytest.raises(
        ss.InputError, match="is a graph whose layers cannot be watched: give the model it was exported"
    ):
        ss.wrap(graph.module())
    with pytest.raises(ss.InputError, match="is scripted, so that its layers cannot be watched"):
        ss.wrap(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)))
    model.visual = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ss.InputError, match="'visual' is scripted"):
        ss.wrap(model)


class Linear8bitLt(nn.Linear):
    __module__ = "bitsandbytes.nn.modules"


def packed(bits: torch.dtype) -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(torch.zeros(2, 2).to(bits), requires_grad=False)
    return layer


def with_a_layer(layer: nn.Module) -> nn.Module:
    model = clip(torch.float32)
    model.visual.transformer.resblocks[1].mlp.c_fc = layer
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: quantize_dynamic(clip(torch.float32), {nn.Linear}), "Linear '.*resblocks.0.mlp.c_fc'"),
        (lambda: with_a_layer(Linear8bitLt(2, 2)), "Linear8bitLt '.*resblocks.1.mlp.c_fc'"),
        (lambda: with_a_layer(packed(torch.int8)), "Linear '.*resblocks.1.mlp.c_fc'"),
        (lambda: with_a_layer(packed(torch.float8_e4m3fn)), "Linear '.*resblocks.1.mlp.c_fc'"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_quantised_models_are_refused(model, words):
    with pytest.raises(
        ss.InputError, match=words + " has quantised weights, whose operations have no derivative: load"
    ):
        ss.wrap(model())


def test_transforms_as_open_clip_gives_them():
    model = clip(torch.float32, text={"vocab_size": 49408})
    train, evaluation = (open_clip.image_transform(32, is_train=train) for train in (True, False))
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    photo = photographs()[0].crop((0, 0, 100, 100))
    expected = ss.explain(ss.wrap(model, evaluation, tokenizer), photo, "a dog").matrix
    for dual in (
        ss.wrap(model, (train, evaluation), tokenizer),
        ss.wrap((model, train, evaluation), tokenizer=tokenizer),
        ss.wrap((model, evaluation), tokenizer=tokenizer),
    ):
        assert torch.equal(ss.explain(dual, photo, "a dog").matrix, expected)
    with pytest.raises(ss.InputError, match="the preprocessing is random: give the model's validation transform"):
        ss.explain(ss.wrap(model, train, tokenizer), photo, "a dog")


def test_tokenizers_that_are_not_the_models():
    model, photo = clip(torch.float32, text={"vocab_size": 49408}), photographs()[0].crop((0, 0, 100, 100))
    preprocess = open_clip.image_transform(32, is_train=False)
    hub = vocabularies.byte_pairs("<pad>", "<eos>", "<bos>", "<image>")
    for tokenizer, words in (
        (
            open_clip.SimpleTokenizer(),
            r"gives \(1, 77\), not token ids \(1, 12\): open_clip.get_tokenizer\(…, context_length=12",
        ),
        (hub, "the tokenizer gives BatchEncoding"),
        (lambda texts: texts.lower(), r"cannot read a list of texts \(AttributeError: "),
    ):
        with pytest.raises(ss.InputError, match=words):
            ss.explain(ss.wrap(model, preprocess, tokenizer), photo, "a dog")
    with pytest.raises(ss.InputError, match="tokenizer='ViT-B-32' is a name: give the object"):
        ss.wrap(model, preprocess, "ViT-B-32")
