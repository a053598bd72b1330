"""Quantizes a network after training: one mode of evaluation, or the table of all methods.

    python -m experiments.quantize --config=configs/quantize/mobilenet_v2.py \
        --mode=table --workdir=build/quantize/mobilenet_v2

| mode | what it does |
|---|---|
| float | scores the network in float |
| ptq | quantizes by ``config.recipe`` and scores |
| lapq | the same with LAPQ's joint search |
| weights | the same with weights alone: tensors stay in float |
| plan | the same at the bits and on the edge of ``--plan``, a file of `SplitPlan.save` |
| statistics | writes statistics of all weights and tensors: ``statistics.csv``, ``.png`` |
| table | runs every method of ``config.table`` at every pair of bits |

A mode that scores writes ``MODE.json``: scores, recipe and run record. The table writes
``table.csv``, ``table.md``, ``table.png`` and ``table.json``, and keeps the result of each case
in ``cases/``: a table that was interrupted, or asked for one more method, runs what is missing.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import config_flags

import autosplit
from autosplit.errors import ArtefactError, AutosplitError, InputError
from autosplit.files import read_document, to_plain, write_document, write_json, write_text
from autosplit.reporting import run_record
from autosplit.reporting.canvas import save_figure
from autosplit.reporting.formats import format_error, format_percent
from autosplit.workload import FLOAT_BITS
from experiments.flag_parsing import parse_flags
from experiments.quantize_methods import FLOAT, METHODS, Case, recipe_of, table_cases
from experiments.quantize_report import table_csv, table_figure, table_markdown
from experiments.quantize_scores import Bench, load_bench, quantized_logits, score
from experiments.quantize_statistics import rows_csv, statistics_figure, statistics_rows

MODES = ("float", "ptq", "lapq", "weights", "plan", "statistics", "table")

KIND, VERSION = "autosplit.quantize.case", 1

REQUIRED = ("title", "seed", "model", "images", "chunk", "use_labels", "recipe", "table",
            "statistics_bits")  # fmt: skip
"""Fields of every configuration; `configs/quantize/_base.py` explains them."""


def define_flags() -> None:
    """Defines this program's flags; not at import, where they would meet another program's."""
    config_flags.DEFINE_config_file("config", None, "E.g. configs/quantize/mobilenet_v2.py.")
    flags.DEFINE_enum("mode", "table", MODES, "What to do.")
    flags.DEFINE_string("plan", None, "File of a plan, for --mode=plan.")
    flags.DEFINE_string("workdir", None, "Directory for all results.")
    flags.mark_flags_as_required(["config", "workdir"])


def run(
    config: ml_collections.ConfigDict,
    mode: str,
    workdir: pathlib.Path,
    plan: pathlib.Path | None = None,
) -> pathlib.Path:
    """Runs one mode.

    Args:
      config: see ``configs/quantize``.
      mode: one of `MODES`.
      workdir: for the results.
      plan: of ``SplitPlan.save``, for the mode ``plan`` alone.

    Returns:
      The file with the result.

    Raises:
      AutosplitError: a setting or an input is not as expected.
    """
    missing = [name for name in REQUIRED if name not in config]
    if missing or mode not in MODES:
        raise InputError(
            f"The configuration lacks {missing} and the mode is {mode!r}; expected all fields of "
            f"configs/quantize/_base.py and one of {', '.join(MODES)}."
        )
    if (plan is None) != (mode != "plan"):
        raise InputError(f"--plan is {plan} in mode {mode}; give a file in mode plan alone.")
    # Before anything takes time.
    cases = table_cases(config.table.methods, config.table.columns)
    options = _recipe_options(config, mode)
    record = run_record(config.to_dict(), config.seed)
    workdir.mkdir(parents=True, exist_ok=True)
    if mode == "table":
        return write_table(config, cases, record, workdir)
    if mode == "statistics":
        return write_statistics(config, workdir)
    bench = load_bench(config)
    if mode == "float":
        result: dict[str, Any] = {"recipe": None, **score(bench, bench.reference)}
    else:
        if plan is None:
            recipe = autosplit.Recipe(**options)
        else:
            recipe = autosplit.Recipe.of_plan(
                bench.graph, autosplit.SplitPlan.load(plan), **options
            )
        result = {"recipe": recipe, **measure(bench, recipe, config)}
    print(f"   {one_line(result)}", flush=True)
    path = workdir / f"{mode}.json"
    write_json(path, {"title": config.title, "mode": mode, **result, "record": record})
    return path


def _recipe_options(config: ml_collections.ConfigDict, mode: str) -> dict[str, Any]:
    """Returns the fields of the recipe of a mode, checked."""
    options = {**config.recipe.to_dict(), **({"joint": "lapq"} if mode == "lapq" else {})}
    if mode == "weights":
        options["a_bits"] = FLOAT_BITS
        # The ends that are read by the first and last layer would have their own bits.
        options["activation_clipping"] = "minmax"
    try:
        autosplit.Recipe(**options)
    except TypeError as error:
        raise InputError(
            f"config.recipe has a field that no recipe has ({error}); expected those of "
            "autosplit.Recipe."
        ) from error
    if mode == "plan":
        decided = ("w_bits", "a_bits", "first_last_bits", "fused_sums", "on_edge")
        options = {name: value for name, value in options.items() if name not in decided}
    return options


def measure(
    bench: Bench, recipe: autosplit.Recipe, config: ml_collections.ConfigDict
) -> dict[str, Any]:
    """Quantizes and scores.

    Returns:
      The fields of `score`, with ``quantize_s`` and ``score_s``.
    """
    start = time.perf_counter()
    quantized = autosplit.quantize(
        bench.graph,
        bench.params,
        bench.calibration,
        recipe,
        labels=bench.calibration_labels if config.use_labels else None,
        seed=config.seed,
        on_progress=_tell,
    )
    middle = time.perf_counter()
    found = score(bench, quantized_logits(bench, quantized))
    seconds = {"quantize_s": middle - start, "score_s": time.perf_counter() - middle}
    return {**found, **seconds}


def _tell(line: str) -> None:
    print(f"      {line}", flush=True)


def write_table(
    config: ml_collections.ConfigDict,
    cases: Sequence[Case],
    record: Mapping[str, Any],
    workdir: pathlib.Path,
) -> pathlib.Path:
    """Runs the cases that are missing, and writes the table of all.

    Returns:
      The table as Markdown.
    """
    bench: list[Bench] = []  # loaded when the first case needs it

    def loaded() -> Bench:
        if not bench:
            bench.append(load_bench(config))
        return bench[0]

    rows = []
    for number, case in enumerate(cases, 1):
        settings = case_settings(config, case)
        path = workdir / "cases" / case.file_name
        row = kept_row(path, settings)
        if row is None:
            print(f"   {number} of {len(cases)}: {case.column} {case.method}", flush=True)
            row = measure_case(case, config, loaded)
            write_document(path, KIND, VERSION, to_plain({"settings": settings, "row": row}))
        print(f"   {number} of {len(cases)}: {case.column} {case.method}: {one_line(row)}",
              flush=True)  # fmt: skip
        rows.append(row)
    write_json(workdir / "table.json", {"title": config.title, "rows": rows, "record": record})
    write_text(workdir / "table.csv", table_csv(rows))
    save_figure(table_figure(config.title, rows), workdir / "table.png")
    write_text(workdir / "table.md", table_markdown(config.title, rows, record))
    return workdir / "table.md"


def measure_case(
    case: Case, config: ml_collections.ConfigDict, bench: Callable[[], Bench]
) -> dict[str, Any]:
    """Returns the row of one case."""
    names = {"method": case.method, "bits": case.column}
    if case.method == FLOAT:
        found = score(bench(), bench().reference)
        return {**names, **found, "quantize_s": None, "score_s": None}
    recipe = recipe_of(case, config.table.settings.to_dict())
    return {**names, **measure(bench(), recipe, config)}


def case_settings(config: ml_collections.ConfigDict, case: Case) -> dict[str, Any]:
    """Returns all that the result of a case depends on: where it differs, the case runs again."""
    shared = {name: to_plain(config[name]) for name in ("seed", "chunk", "use_labels")}
    return {
        **shared,
        "model": config.model.to_dict(),
        "images": config.images.to_dict(),
        "case": to_plain(dataclasses.asdict(case)),
        "method": to_plain(METHODS.get(case.method)),
        "settings": to_plain(config.table.settings.to_dict()),
    }


def kept_row(path: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the row of an earlier run with the same settings; None where there is none."""
    try:
        body = read_document(path, KIND, VERSION)
    except ArtefactError:
        return None
    return body["row"] if body["settings"] == to_plain(settings) else None


def write_statistics(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Writes statistics of all weights and tensors as CSV and as a plot."""
    rows = statistics_rows(load_bench(config), config.statistics_bits)
    save_figure(statistics_figure(rows, config.title), workdir / "statistics.png")
    write_text(workdir / "statistics.csv", rows_csv(rows))
    return workdir / "statistics.csv"


def one_line(row: Mapping[str, Any]) -> str:
    """Returns the scores of a row in a line."""
    parts = [f"{name} {format_percent(row[field])}"
             for field, name in (("top1", "top-1"), ("top5", "top-5"), ("agreement", "agreement"))
             if row[field] is not None]  # fmt: skip
    parts.append(f"output error {format_error(float(row['output_error']))}")
    if row.get("quantize_s") is not None:
        parts.append(f"{row['quantize_s']:.1f} s")
    return ", ".join(parts)


def main(argv: Sequence[str]) -> None:
    """Reads the flags and runs the mode."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; expected flags only.")
    values = flags.FLAGS
    try:
        path = run(
            values.config,
            values.mode,
            pathlib.Path(values.workdir).resolve(),
            None if values.plan is None else pathlib.Path(values.plan),
        )
    except (AutosplitError, OSError) as error:
        sys.exit(f"quantize: {error}")
    print(f"The result is in {path}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=parse_flags)
