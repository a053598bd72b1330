"""A saved split is checked byte by byte; a directory is whole, or as it was before."""

import json
import os
import pathlib

import pytest

import autosplit
from autosplit import files
from autosplit.errors import ArtefactError, InputError
from autosplit.execution import export
from autosplit.execution.artefact import load

FILES = (
    "manifest.json", "edge.stablehlo", "edge_unpack.stablehlo", "cloud.stablehlo",
    "cloud_batch.stablehlo", "edge_weights.bin", "cloud_weights.bin",
)  # fmt: skip


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_split_is_these_files(saved):
    assert sorted(os.listdir(saved)) == sorted(FILES)


class TestSpoiled:
    @pytest.mark.parametrize("name", FILES)
    def test_truncated_by_one_byte(self, copy, name):
        data = (copy / name).read_bytes()
        # The manifest ends with a line feed, which means nothing.
        (copy / name).write_bytes(data.rstrip(b"\n")[:-1])
        with pytest.raises(ArtefactError, match=name):
            load(copy)

    @pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.99])
    @pytest.mark.parametrize("name", FILES)
    def test_one_bit_flipped(self, copy, name, place):
        data = bytearray((copy / name).read_bytes())
        index = int(place * len(data))
        while name == "manifest.json" and chr(data[index]).isspace():
            index += 1
        data[index] ^= 1
        (copy / name).write_bytes(bytes(data))
        with pytest.raises(ArtefactError, match=name):
            load(copy)

    @pytest.mark.parametrize("name", FILES)
    def test_removed(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(ArtefactError, match=name):
            load(copy)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no complete JSON"),
            ("not JSON", "no complete JSON"),
            ("[1, 2]", "expected"),
            ("{}", "expected"),
            ("null", "expected"),
        ],
    )
    def test_no_manifest(self, copy, text, message):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(ArtefactError, match=message):
            load(copy)

    def test_manifest_edited(self, copy):
        place = copy / "manifest.json"
        document = json.loads(place.read_text())
        document["body"]["label"] = "cloud-only"
        place.write_text(json.dumps(document))
        with pytest.raises(ArtefactError, match="changed after it was saved"):
            load(copy)

    def test_another_format_version(self, copy):
        place = copy / "manifest.json"
        document = json.loads(place.read_text())
        place.write_text(json.dumps({**document, "version": document["version"] + 1}))
        with pytest.raises(ArtefactError, match="version"):
            load(copy)

    def test_another_kind_of_document(self, split_plan, copy):
        split_plan.save(copy / "manifest.json")
        with pytest.raises(ArtefactError, match=r"autosplit\.plan"):
            load(copy)

    def test_no_directory(self, tmp_path):
        with pytest.raises(ArtefactError, match="manifest"):
            load(tmp_path / "nothing")


class TestSaving:
    def test_an_older_split_is_replaced(self, dense, made, saved, tmp_path):
        path = tmp_path / "split"
        autosplit.split(dense.graph, dense.params, dense.graph.cuts()[-1]).save(path)
        assert "cloud.stablehlo" not in os.listdir(path)
        made.save(path)
        assert load(path).manifest.split_id == made.manifest.split_id
        assert os.listdir(tmp_path) == ["split"]

    def test_an_empty_directory_is_used(self, made, tmp_path):
        (tmp_path / "split").mkdir()
        made.save(tmp_path / "split")
        assert sorted(os.listdir(tmp_path / "split")) == sorted(FILES)

    def test_missing_parents_are_made(self, made, tmp_path):
        made.save(tmp_path / "a" / "b")
        assert load(tmp_path / "a" / "b").manifest.label == made.manifest.label

    @pytest.mark.parametrize(
        "foreign",
        [
            {"thesis.tex": "text"},
            # Web applications have one too.
            {"manifest.json": "{}"},
            {"manifest.json": "{}", "index.html": "<p>"},
            {"folder/notes.txt": "text"},
        ],
    )
    def test_a_foreign_directory_is_left_alone(self, made, tmp_path, foreign):
        path = tmp_path / "mine"
        for name, text in foreign.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        before = contents(path)
        with pytest.raises(InputError, match="holds no split"):
            made.save(path)
        assert contents(path) == before
        assert os.listdir(tmp_path) == ["mine"]

    def test_a_split_with_notes_beside_it_is_left_alone(self, made, copy):
        (copy / "notes.txt").write_text("accuracy 71 %")
        before = contents(copy)
        with pytest.raises(InputError, match=r"notes\.txt"):
            made.save(copy)
        assert contents(copy) == before

    def test_a_file_is_left_alone(self, made, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(InputError, match="is a file"):
            made.save(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "text"

    @pytest.mark.parametrize("step", ["_export", "_write_arrays", "write_manifest"])
    def test_a_failure_leaves_the_older_split(self, made, copy, monkeypatch, step):
        def fail(*_):
            raise OSError("disk full")

        before = contents(copy)
        monkeypatch.setattr(export, step, fail)
        with pytest.raises(OSError, match="disk full"):
            made.save(copy)
        with pytest.raises(OSError, match="disk full"):
            made.save(copy.parent / "new")
        assert contents(copy) == before
        assert os.listdir(copy.parent) == ["copy"]

    def test_a_failure_to_rename_leaves_the_older_split(self, made, copy, monkeypatch):
        before, replace = contents(copy), os.replace

        def fail_in_place(source, target):
            if pathlib.Path(target) == copy and not moved:
                moved.append(target)
                raise OSError("no")
            replace(source, target)

        moved = []
        monkeypatch.setattr(files.os, "replace", fail_in_place)
        with pytest.raises(OSError, match="no"):
            made.save(copy)
        assert contents(copy) == before
        assert os.listdir(copy.parent) == ["copy"]

    def test_a_loaded_split_is_not_saved_again(self, saved, tmp_path):
        with pytest.raises(InputError, match="copy its directory"):
            load(saved).save(tmp_path / "again")
        with pytest.raises(InputError, match="copy its directory"):
            load(saved, sides=["edge"]).save(tmp_path / "again")
        assert not (tmp_path / "again").exists()
