"""What a run costs."""

from itmbench.bench import measure


def test_reading_the_best_checkpoint_for_the_test_counts_nothing_twice() -> None:
    before, meter = measure.Meter(), measure.Meter()
    before.items["train"], before._before = 8, 100.0
    meter.load_state_dict(before.state_dict())  # a training that goes on
    assert meter.items["train"] == 8 and 100 <= meter.elapsed() < 110
    meter.load_state_dict(before.state_dict() | {"elapsed": 500.0})  # the test after it
    assert meter.elapsed() < 110
