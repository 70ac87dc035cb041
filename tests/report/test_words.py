from results_store import CAPTION, LABEL

from itmbench.report.words import in_words


def test_each_protocol_says_what_it_does() -> None:
    assert "best-ranked own caption" in in_words(CAPTION, True)
    assert "shares a label" in in_words(LABEL, True)
    assert "label" not in in_words(CAPTION, True)


def test_words_follow_the_fields() -> None:
    assert "Ties lose" in in_words(CAPTION, True)
    assert "Ties win" in in_words({**CAPTION, "ties": "optimistic"}, True)
    assert "divides by the relevant items among those K" in in_words(LABEL, True)
    assert "divides by all relevant items" in in_words({**LABEL, "normaliser": "all"}, True)
    assert "no training item" in in_words({**LABEL, "gallery": "unseen"}, True)


def test_words_say_how_test_items_were_encoded() -> None:
    assert "encoded alone (inductive)" in in_words(CAPTION, True)
    assert "encoded together (transductive)" in in_words(CAPTION, False)


def test_words_say_what_probes_are() -> None:
    assert "two nouns or attributes exchanged; guessing gives a half" in in_words(CAPTION, True)
    assert "probe" not in in_words(LABEL, True)
