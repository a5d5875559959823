"""`similarity-en`: pairs of short English news documents, with how similar people found them (0 to 1).

All 1,225 pairs of 50 documents: rows to judge embeddings by rank correlation. The pairs are not independent, as each
document is in 49 of them, so bounds from them are narrower than those of as many separate pairs would be. The texts to
calibrate on are other documents of the same kind, without scores.
Source: Lee, Pincombe, Welsh (2005), An empirical evaluation of models of text document similarity; the copy in gensim.
"""

from __future__ import annotations

from itertools import combinations

from enginewright_builder.datasets.news import corpus, folder, passages
from enginewright_builder.datasets.rows import Row

NAME = "similarity-en"


def calibration_rows() -> list[Row]:
    """Passages of other documents."""
    judged = set(corpus("lee.cor"))
    return passages([text for text in corpus("lee_background.cor") if text not in judged])


def evaluation_rows() -> list[Row]:
    """Pairs with scores."""
    documents = corpus("lee.cor")
    lines = (folder() / "similarities0-1.txt").read_text(encoding="ascii").splitlines()
    scores = [[float(cell) for cell in line.split("\t")] for line in lines]
    # The matrix has values above the diagonal only.
    return [
        Row(documents[one], text_pair=documents[other], score=scores[one][other])
        for one, other in combinations(range(len(documents)), 2)
    ]
