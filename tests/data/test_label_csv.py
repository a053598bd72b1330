"""A CSV of labels is read in its order, and every wrong row is named or listed."""

import PIL.Image
import pytest

from autosplit import data
from autosplit.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for level, name in enumerate(["a.png", "b.png", "sub/c.png"]):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (20, 20), (80 * level,) * 3).save(path)
    return tmp_path


def write(folder, text, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


def read(folder, text, **kwargs):
    return data.read_label_csv(write(folder, text), folder / "images", **kwargs)


def test_rows_keep_their_order(folder):
    files = read(folder, "file,label\nsub/c.png,7\na.png, 0\n\n")
    assert files.paths == (folder / "images/sub/c.png", folder / "images/a.png")
    assert files.labels.tolist() == [7, 0]
    assert files.class_names is None
    loaded = data.load_labelled(files, resize=8, crop=8)
    assert loaded.images[:, 0, 0, 0].tolist() == [160, 0]
    assert loaded.labels.tolist() == [7, 0]


def test_files_are_beside_the_csv_unless_said_otherwise(folder):
    text = "file,label\nimages/a.png,1\n"
    assert data.read_label_csv(write(folder, text)).paths == (folder / "images/a.png",)


def test_names_and_numbers_give_the_same_labels(folder):
    names = ("cat", "dog", "sea horse")
    rows = 'file,label\na.png,"sea horse"\nb.png,2\nsub/c.png,cat\n'
    files = read(folder, rows, class_names=names)
    assert files.labels.tolist() == [2, 2, 0]
    assert files.class_names == names


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_header(folder):
    path = write(folder, "file,label\r\nimages/a.png,3\r\n", encoding="utf-8-sig")
    assert data.read_label_csv(path).labels.tolist() == [3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png", r"row 3 of .*labels\.csv is 'a\.png'; expected a file and a label"),
        ("a.png,1,2", "expected a file and a label"),
        (",1", "expected a file and a label"),
        ("d.png,1", r"names d\.png, which is not in"),
        ("b.png,1", r"names b\.png a second time"),
        ("a.png,-1", "label '-1'; expected one of 2 class names or a class index"),
        ("a.png,0.5", r"label '0\.5'"),
        ("a.png,horse", "label 'horse'"),
        ("a.png,", "label ''"),
        ("a.png,2", "label 2; expected 0 to 1"),
    ],
)
def test_a_wrong_row_is_named_or_listed(folder, row, message):
    text = f"file,label\nb.png,1\n{row}\nsub/c.png,0\n"
    with pytest.raises(InputError, match=message):
        read(folder, text, class_names=("cat", "dog"))
    files = read(folder, text, class_names=("cat", "dog"), on_error="skip")
    assert files.labels.tolist() == [1, 0]
    assert len(files.skipped) == 1
    assert files.skipped[0].what.startswith("row 3 of")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "starts with 'nothing'; expected the header 'file,label'"),
        ("path,class\na.png,1\n", "starts with 'path,class'"),
        ("a.png,1\n", r"starts with 'a\.png,1'"),
        ("file,label\n", "no usable rows"),
        ('file,label\n"a.png,1\n', "cannot be read as CSV"),
    ],
)
def test_another_file_is_refused(folder, text, message):
    with pytest.raises(InputError, match=message):
        read(folder, text)


def test_unreadable_files_are_refused(folder):
    with pytest.raises(InputError, match="cannot be read as CSV"):
        data.read_label_csv(folder / "absent.csv")
    (folder / "labels.csv").write_bytes(b"file,label\n\xff.png,1\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        data.read_label_csv(folder / "labels.csv")
    with pytest.raises(InputError, match="on_error is 'warn'"):
        read(folder, "file,label\n", on_error="warn")
