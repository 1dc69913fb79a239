"""Long documents: a query of ten words against a document, in either order, in forward passes of both inputs.

    python benchmarks/long_inputs.py                             # every model and method, a process each: some half an hour
    python benchmarks/long_inputs.py bert-mean 500               # one model, documents of 500 words, every method
    python benchmarks/long_inputs.py long-mean 8190 chained:-1   # one of the methods

Full-size encoders with random weights as sentence-transformers, and the trained MiniLM; float32. `query, document` and
`document, query` are everything from texts to the whole matrix, forward passes of the host included, in units of one forward
pass of both texts in the same run: medians of three, of processor seconds. Memory is the process's peak for one explanation of
either order beyond what it had after a forward pass.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from machine import peak

MODELS = {
    # layers, width, heads, positions, pooling
    "bert-mean": (12, 768, 12, 512, "mean"),
    "bert-cls": (12, 768, 12, 512, "cls"),
    "minilm": None,
    "long-mean": (4, 128, 4, 8192, "mean"),
    "long-cls": (4, 128, 4, 8192, "cls"),
}
METHODS = {
    "grounded": "None",
    "last-layer": "'last-layer'",
    "paper": "'paper'",
    "integrated:0": "ss.IntegratedJacobian(layer=0)",
    "chained:-1": "ss.ChainedJacobian(layer=-1)",
    "chained:0": "ss.ChainedJacobian(layer=0)",
}
RUNS = [
    ("bert-mean", 500, ["grounded", "last-layer", "chained:-1"]),
    ("bert-cls", 500, ["grounded", "last-layer"]),
    ("minilm", 300, ["grounded", "last-layer", "chained:-1"]),
    ("long-mean", 2046, ["chained:-1"]),
    ("long-mean", 8190, ["chained:-1"]),
    ("long-cls", 8190, ["last-layer"]),
]
HEAD = (
    "| model | words | method | forward, s | query, document | document, query | peak memory, GB | error |\n"
    "|---|---|---|---|---|---|---|---|"
)
VOCABULARY = 2000


def sentence_model(name: str):
    """A sentence-transformers model with random weights, one token a word; or the trained MiniLM."""
    import torch

    import secondsight as ss

    if MODELS[name] is None:
        return ss.load("builtin").pair("text", "text")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    layers, width, heads, positions, pooling = MODELS[name]
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{number}" for number in range(VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=positions,
        initializer_range=0.04,
    )
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, model_max_length=positions).save_pretrained(
            folder
        )
        transformer = Transformer(folder, max_seq_length=positions)
    host = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode=pooling)], device="cpu")
    return ss.wrap(host.eval())


def texts(name: str, words: int) -> tuple[str, str]:
    """A query of ten words, and a document of so many."""
    import random

    draw = random.Random(0)
    if MODELS[name] is None:
        common = [
            "the",
            "cat",
            "sat",
            "on",
            "red",
            "mats",
            "and",
            "two",
            "dogs",
            "ran",
            "in",
            "parks",
            "with",
            "hot",
            "tea",
        ]
        return " ".join(draw.choices(common, k=10)), " ".join(draw.choices(common, k=words))
    return tuple(" ".join(f"w{draw.randrange(VOCABULARY)}" for _ in range(count)) for count in (10, words))


def clock(run, repeats: int = 3) -> tuple[float, object]:
    """Median processor seconds of a call, which other programs on the machine do not change much, and what it gave."""
    times, result = [], None
    for _ in range(repeats):
        begun = time.process_time()
        result = run()
        times.append(time.process_time() - begun)
    return statistics.median(times), result


def measure(name: str, words: int, method: str, repeats: int) -> None:
    """Prints the row of one model, length and method."""
    import secondsight as ss

    warnings.simplefilter("ignore")
    model, (query, document) = sentence_model(name), texts(name, words)
    explainer = eval(METHODS[method], {"ss": ss})

    def forward():
        model.left.embed([query]), model.left.embed([document])

    def explained(left, right):
        e = ss.explain(model, left, right, explainer)
        assert e.matrix.isfinite().all()
        return e

    forward()
    before = peak()
    _, e = clock(lambda: explained(query, document), 1)
    memory = peak() - before
    explained(document, query)
    memory = max(memory, peak() - before)
    unit, _ = clock(forward, max(5, repeats))
    forwards, _ = clock(lambda: explained(query, document), repeats)
    backwards, _ = clock(lambda: explained(document, query), repeats)
    print(
        f"| {name} | {words} | {method} | {unit:.2f} | {forwards / unit:.1f} | {backwards / unit:.1f} | {memory:.2f} "
        f"| {e.error:.0e} |",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", choices=MODELS)
    parser.add_argument("words", nargs="?", type=int, default=500)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(HEAD, flush=True)
    if len(options.methods) == 1:
        measure(options.model, options.words, options.methods[0], options.repeats)
    else:
        runs = [(options.model, options.words, options.methods or list(METHODS))] if options.model else RUNS
        for name, words, methods in runs:
            for method in methods:
                command = [sys.executable, __file__, name, str(words), method, "--repeats", str(options.repeats)]
                row = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
                print(row.stdout.strip().splitlines()[-1], flush=True)
