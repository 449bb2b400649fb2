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


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a/x.jpg", "c.mp4", "a"], ["x", "c", "Y"]),
        (["a", "b"], ["Y", "x", "x.png"]),
        (["a/x.jpg", "b/x.png", "A/../b/x.png"], ["x", "x.png"]),
        (["**/*.jpg"], ["[1]", "a/deep/z", "a/x"]),
        (["a/**/*.jpg", "b/*"], ["deep/z", "x", "x.png"]),
        ([], []),
    ],
)
def test_names_of_outputs(tree, sources, expected):
    """Those of files and folders are bare, and patterns keep what is below their fixed part."""
    (tree / "A").mkdir(exist_ok=True)
    for top in ("", f"{tree}/"):
        assert [str(n) for n in output_names(*(top + s for s in sources)).values()] == expected


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
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    results = list(output_names(*(tmp_path / name for name in files)).values())
    assert len({str(name).casefold() for name in results}) == len(files)
    assert all(not name.is_absolute() and ".." not in name.parts for name in results)
