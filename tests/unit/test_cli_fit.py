"""`gemstones fit`: any file of losses to a law with intervals, or one line that says what is wrong."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gemstones.laws import HuberFit, HullFit, PowerLaw, assess, fit_huber
from gemstones.study import Bootstrap
from gemstones.suite import counting
from tests import commands

run, refused = partial(commands.run, "fit"), partial(commands.refused, "fit")

SHAPES = [(256, 23), (512, 12), (768, 3), (768, 45), (1280, 15), (1024, 28), (2560, 8), (3072, 12)]
GEMSTONES = Path(sys.executable).with_name("gemstones")


@pytest.fixture(scope="module")
def losses() -> pd.DataFrame:
    law = PowerLaw(("params", "tokens"), (0.34, 0.28), (6.0, 6.4), 1.7)
    rows = pd.DataFrame(
        [
            {"run": f"{width}x{depth}", "step": step, "width": width, "depth": depth, "tokens": step * 4_194_304.0,
             "params": float(counting.params(width, depth))}
            for width, depth in SHAPES
            for step in range(2000, 26_000, 2000)
        ]
    )  # fmt: skip
    noise = np.random.default_rng(1).normal(0, 3e-3, len(rows))
    return rows.assign(loss=law.predict(rows) * np.exp(noise), flops=6 * rows["params"] * rows["tokens"])


@pytest.fixture
def csv(losses, tmp_path) -> Path:
    losses.to_csv(tmp_path / "losses.csv", index=False)
    return tmp_path / "losses.csv"


def written(losses: pd.DataFrame, path: Path) -> Path:
    """The losses as whatever the name says."""
    kind = path.name.removesuffix(".gz").rsplit(".")[-1]
    if kind == "parquet":
        losses.to_parquet(path)
    elif kind in ("csv", "tsv"):
        losses.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    else:
        records = [json.dumps(record) for record in losses.to_dict("records")]
        text = f"[{', '.join(records)}]" if kind == "json" else "\n".join(records)
        path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "json", "parquet"])
def test_reads_a_file_of_any_kind_to_the_last_digit(losses, tmp_path, kind):
    path = written(losses, tmp_path / f"losses.{kind}")
    data = json.loads(run(path, "--json")[0])
    assert data["provenance"]["rows_sha256"] == fit_huber(losses).provenance["rows_sha256"]
    assert data["n_runs"] == len(SHAPES)
    assert data["provenance"]["file"] == path.name


def test_json_is_the_fit_as_the_workflow_writes_it(losses, csv):
    out, err = run(csv, "--json", "--bootstrap", 20, "--delta", 1e-3, "--seed", 4)
    data = json.loads(out)
    expected, _ = assess(fit_huber(losses, huber_delta=1e-3, seed=4), losses, Bootstrap(resamples=20), seed=4)
    expected = replace(expected, evidence={**expected.evidence, "card": data["card"]})
    assert "leave one run out" in json.dumps(data["card"])
    assert {**data, "provenance": None} == {**json.loads(json.dumps(expected.to_json())), "provenance": None}
    assert list(data) == list(expected.to_json())
    assert HuberFit.from_json(data).to_json() == data
    assert err == "warning: 20 resamples are too few for the ends of 95 % intervals, which may lie further out\n"


def test_the_table_has_estimates_intervals_and_budgets(losses, csv):
    out, err = run(csv, "--bootstrap", 20, "--flops", 1e20, "--flops", 1e26)
    found, resamples = assess(fit_huber(losses), losses, Bootstrap(resamples=20))
    alpha, slope = found.law.exponents[0], found.law.slope
    low, high = found.evidence["intervals"]["quantities"]["exponent_params"]
    assert f"exponent α of params {alpha:.4g} {low:.4g} … {high:.4g}" in " ".join(out.split())
    assert f"slope a of N* ∝ C^a {slope:.4g}" in " ".join(out.split())
    assert f"coefficient A of tokens {np.exp(found.law.log_coefficients[1]):.4g}" in " ".join(out.split())
    assert f"objective {found.objective:.10g}" in out
    assert "rows 96, runs 8" in out
    assert "intervals: 20 resamples by run" in out
    error = found.evidence["held_out"]["leave_one_run_out"]["mean_absolute_error"]
    assert f"losses of a run that is left out: off by {100 * error:.2g} % on average" in out
    assert "warning: 20 resamples are too few" in out
    assert err == ""
    optimum = found.law.allocation().params(1e20)
    a = resamples["exponent_tokens"] / (resamples["exponent_params"] + resamples["exponent_tokens"])
    assert a.between(0, 1).all()
    assert f"1e+20 params {optimum:.4g}" in " ".join(out.split())
    assert [line.split()[-1] for line in out.splitlines() if line.strip().startswith("1e+26")] == ["extrapolated"] * 2


def test_budgets_come_with_the_intervals_of_each_resamples_own_optimum(losses, csv):
    data = json.loads(run(csv, "--json", "--bootstrap", 20, "--flops", 1e21)[0])
    found, resamples = assess(fit_huber(losses), losses, Bootstrap(resamples=20))
    optima = [
        PowerLaw(("params", "tokens"), (row.exponent_params, row.exponent_tokens),
                 (row.log_coefficient_params, row.log_coefficient_tokens), 0.0).allocation().tokens(1e21)
        for row in resamples.itertuples()
    ]  # fmt: skip
    (budget,) = data["optima"]
    assert budget["tokens"] == pytest.approx(found.law.allocation().tokens(1e21))
    assert budget["params"] * budget["tokens"] * 6 == pytest.approx(1e21)
    low, high = budget["tokens_interval"]
    assert min(optima) <= low < high <= max(optima)
    assert high == pytest.approx(np.quantile(optima, 1 - 0.0055), rel=0.01)
    assert budget["extrapolated"] is False


def test_columns_and_rows_are_chosen_by_options(losses, tmp_path):
    names = {"loss": "final_loss", "params": "N", "run": "model"}
    strange = losses.rename(columns=names).assign(loss=-1.0, run="same")
    path = written(strange, tmp_path / "losses.csv")
    options = [part for role, name in names.items() for part in ("--column", f"{role}={name}")]
    data = json.loads(run(path, "--json", *options, "--query", "step > 4000 and model != '768x3'")[0])
    rows = losses[(losses["step"] > 4000) & (losses["run"] != "768x3")]
    assert data["provenance"]["rows_sha256"] == fit_huber(rows).provenance["rows_sha256"]
    assert data["n_runs"] == len(SHAPES) - 1
    assert data["provenance"]["columns"] == names
    assert data["provenance"]["query"] == "step > 4000 and model != '768x3'"


def test_objectives_are_chosen_by_options(losses, csv, tmp_path):
    path = written(losses.assign(w=np.arange(1, len(losses) + 1)), tmp_path / "weighted.csv")
    weighted = json.loads(run(path, "--json", "--weights", "w", "--delta", "inf", "--overestimate-penalty", 10)[0])
    assert (weighted["weights"], weighted["huber_delta"], weighted["overestimate_penalty"]) == ("w", None, 10)
    assert "least squares of log losses" in run(csv, "--delta", "inf")[0]
    assert "exponent α of depth" in run(csv, "--law", "width, depth,tokens", "--delta", 0.1)[0]


def test_a_hull_takes_the_place_of_a_law(losses, csv):
    data = json.loads(run(csv, "--hull", "flops", "--json", "--bootstrap", 20, "--flops", 1e20)[0])
    found = HullFit.from_json(data)
    assert data["optima"][0]["params"] == pytest.approx(float(found.lines["params"].predict(1e20)))
    assert data["optima"][0]["params_interval"] is not None
    assert "slope of log params" in run(csv, "--hull", "flops")[0]


def test_a_file_without_runs_is_resampled_by_row_and_says_so(losses, tmp_path):
    path = written(losses.drop(columns="run"), tmp_path / "losses.csv")
    out, _ = run(path, "--bootstrap", 20, "--delta", 0.1)
    assert "warning: rows name no run" in out
    out, err = run(path, "--bootstrap", 20, "--delta", 0.1, "--json")
    assert "rows name no run" in err
    assert any("rows name no run" in text for text in json.loads(out)["intervals"]["warnings"])


def test_names_of_runs_are_no_numbers(losses, tmp_path):
    """Runs 1, 01 and 1.0 are three."""
    names = ["1", "01", "1.0", "1e0", "+1", "001", "2", "3"]
    changed = losses.assign(run=np.repeat(names, 12))
    assert json.loads(run(written(changed, tmp_path / "losses.csv"), "--json")[0])["n_runs"] == 8


def test_numbers_too_long_for_a_machine_word_are_read(losses, tmp_path):
    rows = losses.astype({"params": object}).assign(params=[int(n) * 10**15 for n in losses["params"]])
    for kind in ("jsonl", "csv"):
        data = json.loads(run(written(rows, tmp_path / f"losses.{kind}"), "--json")[0])
        assert data["exponents"] == pytest.approx(fit_huber(losses).law.exponents, rel=1e-6)


HEADER = b"run,params,tokens,loss\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("empty.csv", b"", "No columns to parse from file"),
        ("empty.jsonl", b"\n", "holds no rows"),
        ("header.csv", HEADER, "holds no rows"),
        ("losses.xlsx", b"PK", "unknown kind of file; wanted: .csv"),
        ("noise.csv", bytes(range(256)), "cannot be read: 'utf-8' codec can't decode"),
        ("noise.parquet", bytes(range(256)), "cannot be read"),
        ("noise.jsonl.gz", bytes(range(256)), "cannot be read: Not a gzipped file"),
        ("cut.csv.gz", gzip.compress(HEADER * 99, mtime=0)[:-9], "cannot be read: Compressed file ended"),
        ("control.csv", b"\x01\x02,b\n1,2\n", r"'\x01\x02' is no name of a column"),
        ("line.jsonl", b'{"loss": 1}\n{"loss": \n', "line 2 is no JSON object"),
        ("list.json", b"[1, 2]", "row 1 is no JSON object"),
        ("twice.csv", b"loss,tokens,loss\n1,2,3\n", "two columns are named 'loss'"),
        ("long.csv", HEADER + b"a,1,2,3,4\n" * 9, "cannot be read: Length of header or names does not match"),
        ("ragged.csv", HEADER + b"a,1,2,3\na,1,2,3,4\n", "Expected 4 fields in line 3, saw 5"),
        (
            "short.csv",
            HEADER + b"a,1,2,3\nb,2,3\n",
            "row 2 (run b): column 'loss' is empty or not a number; wanted: a finite number",
        ),
        ("text.csv", HEADER + b"a,1,2,3\nb,2,x,3\n", "row 2 (run b): column 'tokens' is 'x'; wanted: a number"),
        (
            "names.csv",
            b"N,tokens,loss\n1,2,3\n",
            "no column 'params'; it has N, tokens, loss; name the one that holds it",
        ),
        ("few.csv", HEADER + b"a,1,2,3\n", "1 rows for a law with 5 parameters"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name)
    assert error.startswith(f"{tmp_path / name}: ")
    assert message in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--column", "loss=los"], "no column 'los' for loss; it has run, step"),
        (["--column", "los=loss"], "unknown role 'los'; choose from params"),
        (["--column", "loss"], "--column loss: wanted: ROLE=NAME"),
        (["--column", "loss=a", "--column", "loss=b"], "--column loss=b: loss is already read from 'a'"),
        (["--law", "params,foo"], "no column 'foo'; it has run"),
        (["--law", "tokens,tokens"], "two terms are of the same factors"),
        (["--delta", "0"], "huber_delta is 0.0; wanted: a number greater than 0"),
        (["--delta", "nan"], "huber_delta is nan"),
        (["--delta", "small"], "Invalid value for '--delta'"),
        (["--overestimate-penalty", "-1"], "overestimate_penalty is -1.0"),
        (["--weights", "w"], "no column 'w'"),
        (["--level", "95"], "--level is 95; wanted: a share between 0 and 1"),
        (["--bootstrap", "-1"], "Invalid value for '--bootstrap'"),
        (["--unit", "shape"], "Invalid value for '--unit'"),
        (["--flops", "0"], "a budget of 0 FLOPs; wanted: a number greater than 0"),
        (["--flops", "1e21", "--law", "width,tokens"], "budgets need a law of params and tokens"),
        (["--flops", "1e21", "--hull", "gpu_hours"], "a hull over gpu_hours says nothing on budgets of FLOPs"),
        (["--hull", "gpu_hours"], "no column 'gpu_hours'"),
        (["--hull", "flops", "--delta", "1"], "--hull fits no law"),
        (["--query", "step >"], "invalid syntax"),
        (["--query", "foo > 1"], "name 'foo' is not defined"),
        (["--query", "step > 1e9"], "no row matches: step > 1e9"),
        (["--query", "step + 1"], "not true or false for each row: step + 1"),
        (["--nonsense"], "No such option: --nonsense"),
    ],
)
def test_a_bad_option_is_one_line(csv, options, message):
    assert message in refused(csv, *options)


def test_three_lines_of_python_do_the_same(csv):
    rows = pd.read_csv(csv)
    law, _ = assess(fit_huber(rows, ("params", "tokens")), rows, Bootstrap(resamples=20))
    assert law.to_json()["intervals"]["quantities"].keys() >= {"exponent_params", "irreducible_loss", "slope"}


def test_as_a_process_it_loads_only_what_a_fit_needs(csv):
    """What is left out takes longer to load than a fit takes."""
    shown = "import sys; from gemstones.cli import app\ntry: app()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", shown, "fit", csv], capture_output=True, text=True, check=True)
    assert "converged" in done.stdout
    loaded = set(done.stderr.split())
    assert "pandas" in loaded
    assert not loaded & {
        "torch",
        "matplotlib",
        "pandera",
        "scipy.sparse",
        "scipy.special",
        "snakemake",
        "gemstones.study",
    }
    wrong = subprocess.run([GEMSTONES, "fit", csv, "--law", "foo"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert re.fullmatch(r"error: .*losses.csv: no column 'foo'; it has run, .*\n", wrong.stderr)


def test_losses_on_several_sets_are_not_mixed(losses, tmp_path):
    path = tmp_path / "sets.csv"
    rows = losses.assign(step=losses["tokens"], validation_set="a")
    pd.concat([rows, rows.assign(validation_set="b")]).to_csv(path, index=False)
    assert "several validation sets (a, b); say which one" in refused(path)
    run(path, "--query", "validation_set == 'a'", "--bootstrap", "0")
