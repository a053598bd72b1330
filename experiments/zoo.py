"""Holds the networks with published weights against the frameworks that they come from.

    python -m experiments.zoo --config=configs/zoo.py --workdir=build/zoo

The work directory gets ``zoo.md``, ``zoo.csv``, ``zoo.json`` (rows and the run record) and
``detections/``, photographs with what the detectors found; where boxes are known, also
``NAME-classes.csv`` and ``NAME-precision_recall.png``. Where a framework is not installed
(torchvision: ``autosplit[test]``; ONNX Runtime: ``autosplit[peers]``) its columns are empty.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from autosplit.data import COCO_NAMES, PACKAGES, fetch
from autosplit.data.decoding import decode_image
from autosplit.errors import InputError
from autosplit.evaluation import agreement, top_k_accuracy
from autosplit.evaluation.coco import ImageDetections, evaluate_detections
from autosplit.files import write_bytes, write_json, write_text
from autosplit.models import create_model
from autosplit.models.detection_decode import decode
from autosplit.models.nms import Detections, non_max_suppression
from autosplit.reporting import run_record
from autosplit.reporting.drawn_boxes import draw_boxes
from autosplit.reporting.formats import format_percent
from autosplit.reporting.tables import markdown_table
from experiments import zoo_references
from experiments.detections import in_photographs, jpeg_bytes, write_scores
from experiments.measuring_program import run_program
from experiments.photograph_chunks import filled_chunks
from experiments.speed_report import csv_text
from experiments.steps import Job, load_job

Row = dict[str, Any]
Pair = tuple[float, float] | None


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs all networks and writes the results.

    Args:
      config: see ``configs/zoo.py``.
      workdir: for the results.

    Returns:
      What ``zoo.json`` holds.

    Raises:
      AutosplitError: a network, its weights or the photographs are not as expected.
    """
    if not (*config.classifiers, *config.detectors):
        raise InputError("config.classifiers and config.detectors are empty; name a model.")
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in (*config.classifiers, *config.detectors):
        start_s = time.perf_counter()
        detector = name in config.detectors
        job = load_job(job_config(config, name, config.detected if detector else config.classified))
        row = detector_row(config, name, job, workdir) if detector else (
            classifier_row(config, name, job)
        )  # fmt: skip
        rows.append({"network": name, "images": len(job.photographs), **row})
        print(f"{name}: {row} ({time.perf_counter() - start_s:.0f} s)", flush=True)
    pictures = sorted(p.relative_to(workdir).as_posix() for p in workdir.glob("detections/*.jpg"))
    document = {"title": config.title, "rows": rows, "pictures": pictures, "record": record}
    write_json(workdir / "zoo.json", document)
    write_text(workdir / "zoo.csv", csv_text(rows))
    write_text(workdir / "zoo.md", markdown_text(document))
    return document


def job_config(
    config: ml_collections.ConfigDict, name: str, images: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """Returns the configuration of `experiments.steps.load_job` for one network."""
    made = ml_collections.ConfigDict()
    made.seed = config.seed
    made.model = ml_collections.ConfigDict({"name": name, "weights": weights_of(config, name)})
    made.images = ml_collections.ConfigDict({**images.to_dict(), "calibration": 1})
    return made


def weights_of(config: ml_collections.ConfigDict, name: str) -> str:
    """Returns the package or file of a network's weights."""
    if name not in config.weights:
        raise InputError(f"config.weights says nothing of {name}; name its package or its file.")
    return str(config.weights[name])


def classifier_row(config: ml_collections.ConfigDict, name: str, job: Job) -> Row:
    """Returns accuracy here and in the reference, and how far their logits are apart."""
    logits = np.concatenate(list(outputs_of(create_model(name), job, config.batch)))
    reference = zoo_references.torchvision_logits(name, job.variables, job.inputs, config.batch)
    labels = job.photographs.labels
    row = measured("top-1", "top-5", accuracy(logits, labels))
    if reference is None:
        return row
    return row | compared("torchvision", accuracy(reference, labels), [logits], [reference]) | {
        "same_answer": agreement(reference, logits)
    }  # fmt: skip


def detector_row(
    config: ml_collections.ConfigDict, name: str, job: Job, workdir: pathlib.Path
) -> Row:
    """Returns mean AP here and in the reference, and draws what is found."""
    model: Any = create_model(name, len(COCO_NAMES))
    heads = stacked(outputs_of(model, job, config.batch))
    found = boxes_of(model, heads, config, job)
    draw(config, name, job, found, workdir)
    scores = None if job.truth is None else evaluate_detections(found, job.truth)
    if scores is not None:
        write_scores(scores, workdir, name)
    row = measured("AP", "AP50", None if scores is None else (scores.ap, scores.ap50))
    weights = weights_of(config, name)
    path = fetch(weights)[0] if weights in PACKAGES else pathlib.Path(weights)
    reference = zoo_references.onnx_heads(path, job.inputs)
    if reference is None:
        return row
    theirs = None
    if job.truth is not None:
        other = evaluate_detections(boxes_of(model, reference, config, job), job.truth)
        theirs = (other.ap, other.ap50)
    return row | compared("onnxruntime", theirs, heads, reference)


def measured(metric: str, second_metric: str, values: Pair) -> Row:
    """Returns the columns of our own result; those of the reference are empty."""
    ours = values or (None, None)
    return {
        "metric": metric, "ours": ours[0], "second_metric": second_metric, "ours_second": ours[1],
        "framework": None, "theirs": None, "theirs_second": None, "same_answer": None,
        "largest_difference": None,
    }  # fmt: skip


def compared(
    framework: str, values: Pair, found: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> Row:
    """Returns the columns of the reference; differences are over the largest value."""
    theirs = values or (None, None)
    apart = [np.abs(f - r).max() / np.abs(r).max() for f, r in zip(found, reference, strict=True)]
    return {
        "framework": framework, "theirs": theirs[0], "theirs_second": theirs[1],
        "largest_difference": float(max(apart)),
    }  # fmt: skip


def outputs_of(model: Any, job: Job, batch: int) -> Iterator[Any]:
    """Yields the outputs of some images at a time, on the host."""
    apply = jax.jit(model.apply)
    for part, count in filled_chunks(job.photographs.images, batch):
        outputs = apply(job.variables, job.normalize(part))
        yield jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], outputs)


def stacked(parts: Iterator[Any]) -> list[np.ndarray]:
    """Joins the heads of all parts along their first axis."""
    return [np.concatenate(heads) for heads in zip(*parts, strict=True)]


def boxes_of(
    model: Any, heads: Sequence[np.ndarray], config: ml_collections.ConfigDict, job: Job
) -> list[ImageDetections]:
    """Decodes heads and suppresses, one image at a time; boxes in pixels of the photographs."""
    @jax.jit
    def find(one: Sequence[jax.Array]) -> Detections:
        boxes, scores = decode(one, model.anchors, model.strides)
        return non_max_suppression(boxes, scores, **config.detector)

    each = [find([head[i : i + 1] for head in heads]) for i in range(len(job.photographs))]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *each)
    return in_photographs(joined, job.photographs)


def accuracy(logits: np.ndarray, labels: np.ndarray | None) -> Pair:
    """Returns top-1 and top-5; None without labels."""
    if labels is None:
        return None
    return top_k_accuracy(logits, labels), top_k_accuracy(logits, labels, 5)


def draw(
    config: ml_collections.ConfigDict, name: str, job: Job,
    found: Sequence[ImageDetections], workdir: pathlib.Path,
) -> None:  # fmt: skip
    """Writes photographs with their boxes to ``detections/``."""
    for path, each in zip(job.photographs.paths[: config.pictures], found, strict=False):
        shown = each.scores >= config.shown_score
        names = [COCO_NAMES[index] for index in each.classes[shown]]
        photograph = np.asarray(decode_image(path))
        picture = draw_boxes(photograph, each.boxes[shown], names, each.scores[shown])
        target = workdir / "detections" / f"{name}-{path.stem}.jpg"
        target.parent.mkdir(exist_ok=True)
        write_bytes(target, jpeg_bytes(picture))


def markdown_text(document: Mapping[str, Any]) -> str:
    """Writes the table of all networks.

    Args:
      document: what ``zoo.json`` holds.
    """
    def share(value: float | None) -> str:
        return "–" if value is None else format_percent(value)

    rows = [
        {
            "network": row["network"], "images": str(row["images"]),
            "metric": f"{row['metric']}, {row['second_metric']}",
            "ours": f"{share(row['ours'])}, {share(row['ours_second'])}",
            "theirs": f"{share(row['theirs'])}, {share(row['theirs_second'])}",
            "framework": row["framework"] or "–", "same answer": share(row["same_answer"]),
            "largest difference": "–" if row["largest_difference"] is None else (
                f"{row['largest_difference']:.1e}"
            ),
        }
        for row in document["rows"]
    ]  # fmt: skip
    git = document["record"]["git"]
    pictures = "\n".join(f"![{path}]({path})" for path in document["pictures"])
    return f"""# {document["title"]}

{markdown_table(rows)}

The largest difference is that of the outputs over their largest value. Commit {git["commit"]}.

{pictures}
"""


if __name__ == "__main__":
    run_program("zoo", run, markdown_text)
