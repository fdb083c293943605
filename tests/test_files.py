import pytest

from attrec.errors import RequestError
from attrec.files import write_whole


def test_a_file_is_written_with_the_folders_that_it_needs(tmp_path):
    path = write_whole(tmp_path / "a" / "b" / "file", lambda file: file.write_text("text"))
    assert path.read_text() == "text"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_others_may_read_what_they_may_read_of_any_file(tmp_path):
    """Some writers, that of safetensors among them, let their own account alone read."""

    def write(file):
        file.unlink(missing_ok=True)
        file.write_text("text")
        file.chmod(0o600)

    (tmp_path / "plain").touch()
    written = write_whole(tmp_path / "file", write)
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("error", "told", "words"),
    [
        (OSError(28, "No space left on device"), RequestError,
         r"/file: cannot be written \(No space left on device\); "),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
    ],
)  # fmt: skip
def test_a_writer_that_stops_half_way_leaves_the_old_file(tmp_path, error, told, words):
    (tmp_path / "file").write_text("old")

    def write(file):
        file.write_text("ne")
        raise error

    with pytest.raises(told, match=words):
        write_whole(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_name_that_is_taken_by_a_folder_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(RequestError, match="taken: cannot be written"):
        write_whole(tmp_path / "taken", lambda file: file.write_text("text"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
