"""Learns the scenes model's byte-pair merges from its world's words: python scripts/scenes_vocabulary.py.

Merging goes on until every word of the grammar is one token; other words fall into pieces. Prints the new hash.
"""

import gzip
import hashlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

from secondsight.data.scenes.captions import words


def learn(vocabulary: list[str]) -> list[tuple[str, str]]:
    """The merges in their order: the most frequent pair first, of equals the first by alphabet."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in vocabulary]
    merges = []
    while any(len(word) > 1 for word in spelled):
        counts = Counter(pair for word in spelled for pair in pairwise(word))
        first, second = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((first, second))
        for word in spelled:
            for i in range(len(word) - 2, -1, -1):
                if i + 1 < len(word) and word[i] == first and word[i + 1] == second:
                    word[i : i + 2] = [first + second]
    return merges


def main() -> None:
    merges = learn([word for word in words() if word.isalpha()])
    text = "#version: 1\n" + "".join(f"{a} {b}\n" for a, b in merges)
    target = Path(__file__).parents[1] / "src/secondsight/encoders/families/scenes_merges.txt.gz"
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(len(merges), "merges", hashlib.sha256(target.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
