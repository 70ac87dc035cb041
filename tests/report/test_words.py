from results_store import CAPTION, LABEL

from itmbench.report.words import in_words, lead_in_words, notes


def test_words_follow_the_protocol() -> None:
    caption, label = in_words(CAPTION, True), in_words(LABEL, True)
    assert "a caption queries all images" in caption and "label" not in caption and "Ties lose" in caption
    assert "shares a label" in label and "probe" not in label
    assert "divides by the number of relevant items among the first K" in label
    assert "divides by the number of relevant items." in in_words({**LABEL, "normaliser": "all"}, True)
    assert "Ties win" in in_words({**CAPTION, "ties": "optimistic"}, True)
    for protocol in (CAPTION, LABEL):
        said = "only the 100 nearest candidates of each query"
        assert said in in_words({**protocol, "shortlist": 100}, True) and said not in in_words(protocol, True)
    assert "unseen leaves them out" in label and "training items" not in caption
    assert "encoded alone (inductive)" in caption and "together (transductive)" in in_words(CAPTION, False)
    codes = in_words({**LABEL, "bits": 64}, True)
    assert "codes of 64 bits are ranked by Hamming distance" in codes and "Ties won" in codes and "NDCG" not in codes
    assert "Hamming" not in label and "Ties won" not in label and "NDCG" in label


def test_notes_explain_the_columns_that_are_shown() -> None:
    assert notes(CAPTION, ["i2t R@1", "wall time"]) == notes(CAPTION)[:1]
    assert len(notes(CAPTION, ["near-twin acc.", "rSum (complete truth)"])) == 3
    assert len(notes(CAPTION, ["R-Precision (complete truth)"])) == 2
    assert "R-Precision" not in " ".join(notes(CAPTION, ["mAP@R (complete truth)"]))
    assert len(notes(CAPTION, ["mAP@R (complete truth)"])) == 2 and len(notes(CAPTION, ["rSum (folds)"])) == 2
    assert [note for note in notes(LABEL, ["mAP (unseen)"]) if "unseen leaves them out" in note]
    assert [note for note in notes(LABEL, ["i2t P at recall 0.3"]) if note.startswith("P at recall")]
    assert not [note for note in notes(LABEL, ["mAP@50"]) if note.startswith("P@K")]
    assert [note for note in notes(LABEL, ["i2t P@50"]) if note.startswith("P@K")]


def test_the_lead_of_the_best_method_is_as_tested() -> None:
    assert lead_in_words({"a": "worse", "b": "worse"}, ranked=True) == "Better than every other method, at 5 %."
    mixed = {"a": "not distinguishable", "b": "untested", "c": "worse", "d": "worse"}
    assert lead_in_words(mixed, ranked=True) == (
        "Best on average: better than 2 others, at 5 %; not distinguishable from a; untested against b."
    )
    assert lead_in_words({"a": "level", "b": "untested"}, True) == "Level with a; untested against b."
    assert lead_in_words({"a": "untested", "b": "untested"}, True) == "Best on average; no difference is tested."
    assert (
        lead_in_words({}, ranked=True) == "The only method."
        and lead_in_words({}, ranked=False) == "No method is ranked."
    )
