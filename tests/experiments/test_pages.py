"""The sentences of the page say which photographs a figure is about."""

import dataclasses
import pathlib

import numpy as np
import pytest

from autosplit.data import LabelledImages
from autosplit.errors import CloudUnavailableError
from autosplit.hardware import Network
from experiments import pages, processes
from experiments.accuracy import ALL, HELD_OUT, Score
from experiments.steps import Job

FLOAT = Score(label="float", subset=ALL, images=5, correct=4, correct_top5=5, same_as_float=5,
              output_error=0.0)  # fmt: skip
SPLIT = dataclasses.replace(FLOAT, label="auto-split", correct=3, same_as_float=4,
                            output_error=0.012)  # fmt: skip


def held_out(score, **changes):
    return dataclasses.replace(score, subset=HELD_OUT, images=2, correct_top5=2, **changes)


SCORES = [FLOAT, SPLIT, held_out(FLOAT, correct=2, same_as_float=2),
          held_out(SPLIT, correct=1, same_as_float=1, output_error=0.034)]  # fmt: skip


def job(calibration, labels=True):
    photographs = LabelledImages(
        images=np.zeros((5, 4, 4, 3), np.uint8),
        labels=np.arange(5) if labels else None,
        paths=tuple(pathlib.Path(f"{index}.jpg") for index in range(5)),
    )
    return Job(apply=None, variables=None, photographs=photographs, calibration=calibration)


def test_all_and_held_out_photographs_have_a_sentence_each():
    note = pages.agreement_note(job(3), SCORES, "auto-split", 0.02)
    assert "The first 3 of the 5 photographs were also used to calibrate." in note
    assert "On all 5 the split network, as it ran, gives the float network's answer 4 of 5" in note
    assert "On the 2 held out" in note
    assert "3.4e-02" in note
    assert "Of these 2 the split network has 1 right, float 2." in note
    assert "labels" not in note


@pytest.mark.parametrize(("limit", "said"), [(0.02, True), (0.034, False), (None, False)])
def test_a_limit_that_held_out_photographs_break_is_said_plainly(limit, said):
    note = pages.agreement_note(job(3), SCORES, "auto-split", limit)
    assert ("above the limit" in note) == said


def test_without_labels_and_held_out_photographs_agreement_is_left():
    scores = [dataclasses.replace(one, correct=None, correct_top5=None) for one in SCORES[:2]]
    note = pages.agreement_note(job(5, labels=False), scores, "auto-split", 0.02)
    assert "none is held out" in note
    assert "4 of 5 times, with an output error of 1.2e-02" in note
    assert "They have no labels" in note
    assert pages.accuracies(scores) == []


def test_no_accuracy_mixes_the_two_sets():
    labels = [(one.label, one.images) for one in pages.accuracies(SCORES)]
    assert labels == [("float", 5), ("auto-split", 5), ("float, held-out images", 2),
                      ("auto-split, held-out images", 2)]  # fmt: skip


def test_the_link_is_named_only_where_something_is_sent():
    network = Network(uplink_bits_per_s=3e6)
    assert "two processes on this machine; the link of 3 Mbit/s" in pages.measured_note(
        20, network, sends=True
    )
    assert "nothing is sent" in pages.measured_note(20, network, sends=False)


def test_a_cloud_process_that_ends_at_once_is_reported(tmp_path, capfd):
    with (
        pytest.raises(CloudUnavailableError, match="serve_cloud ended with the exit status 1"),
        processes.cloud_process(tmp_path / "nowhere", tmp_path),
    ):
        pass
    assert "serve_cloud: " in capfd.readouterr().err
