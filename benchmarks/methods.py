"""Every method on one pair: seconds, what was spent, peak memory, additivity error; each in a process of its own.

    python benchmarks/methods.py            # builtin, and ViT-B/32 with random weights: about a quarter of an hour

Prints Markdown tables for docs/benchmarks.md. 2 cores, float32; times include the model's forward passes, not its loading.
"""

import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
CAPTION = "a cup of coffee and a spoon on a wooden table"
METHODS = {
    "integrated-jacobian": "IntegratedJacobian()",
    "waypoint-jacobian": "WaypointJacobian()",
    "jacobian-times-input": "JacobianTimesInput()",
    "jacobian-times-input, pooled": "JacobianTimesInput(pool_gradients=True)",
    "token-embeddings": "TokenEmbeddings()",
    "token-embeddings, hidden": "TokenEmbeddings(hidden=True)",
    "occlusion": "Occlusion()",
    "banzhaf": "Banzhaf()",
    "shapley": "Shapley(orders=1)",
    "bilinear-lime": "BilinearLime()",
}


def model_named(name: str):
    import open_clip
    import torch

    import secondsight as ss

    if name == "builtin":
        return ss.load("builtin")
    torch.manual_seed(0)
    host = open_clip.create_model(name).eval()
    preprocess = open_clip.image_transform(host.visual.image_size, is_train=False)
    return ss.wrap(host, preprocess, open_clip.get_tokenizer(name))


def measure(name: str, method: str) -> str:
    warnings.simplefilter("ignore")
    import secondsight as ss

    model = model_named(name)
    photo = str(ROOT / "examples" / "coffee.jpg")
    # Once before, so that lazy imports and caches of the model itself are not counted.
    model.left.embed([photo])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begun = time.perf_counter()
    e = ss.explain(model, photo, CAPTION, eval(f"ss.{METHODS[method]}"))
    e.matrix.sum()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    spent = []
    for side in ("left", "right"):
        about = e.about.get(side, {})
        spent.append(next((f"{about[k]} {k}" for k in ("encodings", "passes", "evaluations") if k in about), "–"))
    cells = (f"`{METHODS[method]}`", f"{seconds:.2f}", *spent, f"{peak:.1f} ({before:.1f})", f"{e.error:.1e}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(measure(*sys.argv[1:]))
    else:
        for name in ("builtin", "ViT-B-32"):
            print(
                f"\n{name}:\n\n| method | s | image side | text side | peak memory, GB | error |\n|---|---|---|---|---|---|"
            )
            for method in METHODS:
                command = [sys.executable, __file__, name, method]
                done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
                print(
                    done.stdout.strip() or f"| {method} | failed: {done.stderr.strip().splitlines()[-1:]} |", flush=True
                )
