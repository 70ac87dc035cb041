import pytest

from itmbench.report.columns import COLUMNS, amount, duration, find


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7.25, "7.25"), (999.9, "1000"), (1234, "1.23 k"), (999_900, "1000 k"), (86_567_656, "86.6 M")],
)
def test_amounts_keep_three_digits(value: float, text: str) -> None:
    assert amount(value) == text


def test_units() -> None:
    durations = {3.04: "3.0 s", 60: "60 s", 119.4: "119 s", 120: "2.0 min", 3600: "60 min", 7200: "2.0 h"}
    assert {seconds: duration(seconds) for seconds in durations} == durations
    columns = {metric: column.show for metric, column in find(["peak_memory", "epochs", "rSum"]).values()}
    assert columns["peak_memory"](1_500_000_000) == "1.50 GB"
    assert (columns["epochs"](1234), columns["rSum"](431.26)) == ("1,234", "431.3")


def test_columns_are_in_the_order_of_the_tables_and_every_metric_is_in_one() -> None:
    headings = {
        "i2t/R@1": "i2t R@1", "t2i/R@10": "t2i R@10", "rSum": "rSum", "mAP": "mAP", "unseen/mAP": "mAP (unseen)",
        "i2t/mAP@5000": "i2t mAP@5000", "i2t/P@50": "i2t P@50", "t2i/R@50": "t2i R@50",
        "hard_negative_accuracy": "near-twin acc.", "folds/rSum": "rSum (folds)",
        "truth/rSum": "rSum (complete truth)", "truth/mAP@R": "mAP@R (complete truth)",
        "probe/word_order": "word-order probe", "probe/nouns": "noun probe",
        "truth/R-Precision": "R-Precision (complete truth)", "truth/i2t/mAP@R": "i2t mAP@R (complete truth)",
        "folds/t2i/R@1": "t2i R@1 (folds)", "unseen/i2t/mAP": "i2t mAP (unseen)", "i2t/P@100": "i2t P@100",
        "t2i/mAP@50": "t2i mAP@50", "i2t/P@r0.3": "i2t P at recall 0.3",
        "i2t/MedR": "i2t median rank", "scored_pairs_per_second": "pairs scored/s", "seconds": "wall time",
    }  # fmt: skip
    columns = find(sorted(["method", *headings]))
    assert [(key, heading) for heading, (key, _) in columns.items()] == list(headings.items())
    details = [heading for heading, (_, column) in columns.items() if column.better and column.detail]
    assert details == list(headings.values())[12:-2]
    of_labels = {heading: column.detail for heading, (_, column) in find(["mAP", "i2t/R@1", "i2t/R@50"]).items()}
    assert of_labels == {"mAP": False, "i2t R@50": False, "i2t R@1": True}


def test_less_is_better_for_ranks_only() -> None:
    assert [column.pattern for column in COLUMNS if column.better < 0] == [r"(i2t|t2i)/MedR", r"(i2t|t2i)/MeanR"]
