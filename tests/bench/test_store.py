"""Results on disk: what an older version has written is still read."""

import json
from pathlib import Path

from results_store import make_result, save

from itmbench.bench import store


def test_a_result_of_before_the_audit_is_read(tmp_path: Path) -> None:
    result = make_result("toy", "dual_infonce", 0, {"rSum": 100.0})
    save(result, tmp_path / "cell")
    path = tmp_path / "cell" / store.RESULT
    new = json.loads(path.read_text())
    assert new["schema"] == store.SCHEMA == 2
    path.write_text(json.dumps({key: value for key, value in new.items() if key != "audit"} | {"schema": 1}))
    old = store.Result.load(path.parent)
    assert old.audit == {} and old.schema == 1 and old.metrics == result.metrics
    assert list(store.load_results(tmp_path)["audit_failed"]) == [""]
