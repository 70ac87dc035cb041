from pathlib import Path

import pytest

from itmbench.errors import InputError
from itmbench.runner.yaml_files import load_yaml


def test_a_name_given_twice_is_no_name_lost(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text("name: b\ndatasets: {d: data.yaml}\nmethods:\n  m: method.yaml\n  m: other.yaml\n")
    with pytest.raises(InputError, match=r"bench\.yaml:5: not YAML \(m is given twice; remove one\)"):
        load_yaml(path)
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [{x: 1}, {x: 2}]\n")
    assert load_yaml(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": [{"x": 1}, {"x": 2}]}
    for content, message in ((b"\x00\x01", ": not YAML"), (b"name: b\ndatasets: [1, 2\nmethods: {}\n", ":3: not YAML")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"bench\.yaml{message}"):
            load_yaml(path)
