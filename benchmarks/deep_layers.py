"""Memory of deep layers: ViT-L/14 at the input of block 12 of 24 (text block 6 of 12), each measurement in a process.

    python benchmarks/deep_layers.py            # all, about half an hour on two cores

`pair` is one pair's whole matrix (four nodes), `forward` and `reverse` all patches' vectors (one node, which bounds the
memory: nodes come one after the other). Random full-size weights; prints a Markdown table for docs/benchmarks.md.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARCHITECTURE, LAYERS = "ViT-L-14", (12, 6)
CAPTION = "a cup of coffee and a spoon on a wooden table"


def peak() -> float:
    """Largest resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(what: str) -> str:
    import open_clip
    import torch

    import secondsight as ss

    torch.manual_seed(0)
    host = open_clip.create_model(ARCHITECTURE).eval()
    preprocess = open_clip.image_transform(host.visual.image_size, is_train=False)
    model = ss.wrap(host, preprocess, open_clip.get_tokenizer(ARCHITECTURE))
    photo, before, begun = str(ROOT / "examples" / "coffee.jpg"), peak(), time.perf_counter()
    if what == "pair":
        e = ss.explain(model, photo, CAPTION, ss.IntegratedJacobian(layer=LAYERS, steps=4))
        assert e.matrix.shape[0] == 257
    else:
        method = ss.IntegratedJacobian(layer=LAYERS, steps=1, strategy=what)
        assert model.left.contributions([photo], method)[0].vectors.shape == (257, 768)
    return f"| {what} | {peak():.1f} ({before:.1f}) | {time.perf_counter() - begun:.0f} |"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1]))
    else:
        print("| | peak memory, GB | s |\n|---|---|---|")
        for what in ("pair", "forward", "reverse"):
            done = subprocess.run(
                [sys.executable, __file__, what], capture_output=True, text=True, check=True, cwd=ROOT
            )
            print(done.stdout.strip(), flush=True)
