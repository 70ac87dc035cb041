import pytest

from itmbench.report.columns import COLUMNS, amount, duration, find, gigabytes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7.25, "7.25"),
        (999, "999"),
        (999.9, "1000"),
        (1234, "1.23 k"),
        (999_900, "1000 k"),
        (86_567_656, "86.6 M"),
    ],
)
def test_amounts_keep_three_digits(value: float, text: str) -> None:
    assert amount(value) == text


def test_units() -> None:
    assert [duration(s) for s in (3.04, 60, 119.4, 120, 3600, 7200)] == [
        "3.0 s",
        "60 s",
        "119 s",
        "2.0 min",
        "60 min",
        "2.0 h",
    ]
    assert gigabytes(1_500_000_000) == "1.50 GB"


def test_columns_are_found_in_the_order_of_the_tables_and_each_name_once() -> None:
    keys = ["seconds", "mAP", "t2i/R@10", "i2t/R@1", "i2t/R@50", "method", "t2i/NDCG@50", "truth/rSum", "i2t/mAP@50"]
    found = find(keys)
    assert list(found) == ["t2i R@10", "i2t R@1", "mAP", "i2t mAP@50", "true rSum", "i2t R@50", "t2i NDCG@50", "time"]
    assert sorted(key for key, _ in found.values()) == sorted(set(keys) - {"method"})


def test_less_is_better_for_ranks_only() -> None:
    assert [column.pattern for column in COLUMNS if column.better < 0] == [r"(i2t|t2i)/(MedR|MeanR)"]


def test_probes_are_details_of_which_more_is_better() -> None:
    found = find(["probe/word_order", "probe/nouns", "probe/attributes"])
    assert list(found) == ["order probe", "noun probe", "attribute probe"]
    assert all(column.detail and column.better == 1 and column.show(0.5) == "50.0" for _, column in found.values())
