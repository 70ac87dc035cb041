from pathlib import Path

from itmbench.report.files import write_text


def test_who_reads_while_a_file_is_written_anew_sees_the_old_one_whole(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "page.html", "old")
    with path.open(encoding="utf-8") as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new"
