"""Fit the builtin model's text-to-joint-space map in closed form: python scripts/fit_builtin_map.py

No image is used. Inputs are sentence embeddings of the 1000 ImageNet classes' lemmas, prompts and definitions (timm
carries them), targets their classifier rows, centred and normalised; the map is ridge regression (DeViSE, Frome et al.
2013, made linear). Writes src/secondsight/encoders/families/builtin_map.safetensors and prints the SHA-256 that
builtin.py checks.
"""

import hashlib
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save

from secondsight.encoders.families.builtin import MiniLM, TokenizerFile, load_towers

RIDGE = 2.0
TARGET = Path(__file__).parents[1] / "src" / "secondsight" / "encoders" / "families" / "builtin_map.safetensors"


def corpus() -> tuple[list[str], torch.Tensor]:
    """Texts, and the class index of each."""
    info = files("timm.data") / "_info"
    synsets = (info / "imagenet_synsets.txt").read_text().split()

    def table(name: str) -> dict[str, str]:
        lines = (info / f"imagenet_synset_to_{name}.txt").read_text().splitlines()
        return dict(line.split("\t", 1) for line in lines if "\t" in line)

    lemmas, definitions = table("lemma"), table("definition")
    texts, classes = [], []
    for index, synset in enumerate(synsets):
        # A dictionary keeps the order that a set would shuffle from run to run.
        for lemma in dict.fromkeys(name.strip() for name in lemmas[synset].split(",")):
            texts += [lemma, f"a photo of a {lemma}."]
            classes += [index, index]
        texts.append(definitions[synset])
        classes.append(index)
    return texts, torch.tensor(classes)


@torch.no_grad()
def embed(bert: MiniLM, tokenizer: TokenizerFile, texts: list[str]) -> torch.Tensor:
    """Normalised mean-pooled sentence embeddings (text, 384)."""
    embeddings = torch.empty(len(texts), 384)
    tokens = [tokenizer(text)["input_ids"] for text in texts]
    # Texts of one length share a batch, so that none is padded.
    order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
    for _, rows in groupby(order, key=lambda i: len(tokens[i])):
        for batch in torch.tensor(list(rows)).split(128):
            hidden = bert(torch.tensor([tokens[i] for i in batch]))
            embeddings[batch] = F.normalize(hidden.mean(1), dim=-1)
    return embeddings


def fit() -> dict[str, torch.Tensor]:
    """Mean sentence embedding and ridge map, in float32."""
    net, bert, tokenizer = load_towers()
    texts, classes = corpus()
    x = embed(bert, tokenizer, texts).double()
    rows = net.classifier.weight.double()
    y = F.normalize(rows - rows.mean(0), dim=-1)[classes]
    mean = x.mean(0)
    centred = x - mean
    gram = centred.T @ centred + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return {"mean": mean.float(), "map": torch.linalg.solve(gram, centred.T @ y).float().contiguous()}


if __name__ == "__main__":
    data = save(fit())
    TARGET.write_bytes(data)
    print(f"wrote {TARGET} ({len(data)} bytes), SHA-256 {hashlib.sha256(data).hexdigest()}")
