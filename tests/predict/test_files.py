import pytest

from detrex.predict.files import find_files, is_video, output_names


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "a/Y.PNG", "a/notes.txt", "a/deep/z.jpg", "b/x.png", "c.mp4", "[1].jpg", "odd"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*sources):
    return [str(path) for path in find_files(*sources)]


def test_files_folders_and_patterns(tree):
    assert names("odd", "c.mp4") == ["odd", "c.mp4"]
    assert names("a") == ["a/Y.PNG", "a/x.jpg"]
    assert names(tree / "a") == [str(tree / "a/Y.PNG"), str(tree / "a/x.jpg")]
    assert names("*/x.*") == ["a/x.jpg", "b/x.png"]
    assert names("**/*") == ["[1].jpg", "a/Y.PNG", "a/deep/z.jpg", "a/x.jpg", "b/x.png", "c.mp4"]
    assert names("[1].jpg") == ["[1].jpg"]


def test_each_file_once_where_it_was_named_first(tree):
    assert names("b/x.png", "a", "*/x.*", tree / "a/x.jpg") == ["b/x.png", "a/Y.PNG", "a/x.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("empty", r"folder empty: no image or video \(for its subfolders give 'empty/\*\*/\*'\)"),
        ("a/*.txt", r"pattern 'a/\*.txt': no image or video; there are 1 other files"),
        ("x*.jpg", r"pattern 'x\*.jpg': no image or video$"),
        ("a/none.jpg", r"no file, folder or match of a pattern at a/none.jpg"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_nothing_there(source, message):
    with pytest.raises(FileNotFoundError, match=message):
        find_files("c.mp4", source)


def test_videos_by_suffix():
    assert is_video("a/x.MP4") and is_video("x.avi") and not is_video("x.jpg") and not is_video("mp4")


@pytest.mark.usefixtures("tree")
def test_names_of_outputs_do_not_collide():
    paths = find_files("a/x.jpg", "b/x.png", "c.mp4")
    assert [str(n) for n in output_names(paths).values()] == ["a/x", "b/x", "c"]
    assert [str(n) for n in output_names(find_files("a")).values()] == ["Y", "x"]
    assert output_names([]) == {}


@pytest.mark.parametrize(
    "files",
    [
        ["x.jpg", "x.png", "x.jpg.gif", "x.jpg.png", "X.bmp"],
        ["x.jpg.gif", "x.jpg", "x.png"],
        ["a/x.jpg", "A/x.png", "a/X.jpg"],
        ["x.png", "x", "x.jpg"],
    ],
)
def test_names_of_outputs_side_by_side(tmp_path, files):
    results = output_names([tmp_path / name for name in files])
    assert len({str(name).casefold() for name in results.values()}) == len(files)
    assert all(not name.is_absolute() and ".." not in name.parts for name in results.values())
