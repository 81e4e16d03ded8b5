"""Compares networks with and without pre-training, and baselines, on every task of a data set: the paper's Table 2."""

from __future__ import annotations

from pathlib import Path

from tfmmcl.command import Parser, run

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parses the command line, runs what is missing, and writes the report."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", required=True, help="a prepared data set's folder")
    parser.add_argument("--out", required=True, help="the report's folder; what it holds already is not done again")
    parser.add_argument("--config", help="settings (default: configs/evaluate_synthetic.yaml)")
    parser.add_argument("--tasks", nargs="+", help="tasks to predict (default: the settings', or else all)")
    parser.add_argument("--arms", nargs="+", help="networks to compare (default: the settings')")
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, … (default: the settings')")
    parser.add_argument("--workers", type=int, help="processes at once (default: one with a GPU, else two)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as finetuning.training.epochs=20")
    arguments = parser.parse_intermixed_args()

    from tfmmcl.config import load
    from tfmmcl.evaluation.settings import EvaluateSettings
    from tfmmcl.records.manifest import DataSet

    overrides = [*arguments.overrides]
    for key in ("tasks", "arms"):
        if names := getattr(arguments, key):
            overrides.append(f"{key}=[{', '.join(names)}]")
    if arguments.seeds is not None:
        overrides.append(f"seeds={arguments.seeds}")
    settings = load(arguments.config or CONFIGS / "evaluate_synthetic.yaml", EvaluateSettings, overrides)
    data = DataSet.open(arguments.data)

    from tfmmcl.evaluation.protocol import evaluate
    from tfmmcl.evaluation.report import write_report
    from tfmmcl.files import sole_writer

    out = Path(arguments.out)
    with sole_writer(out):
        results = evaluate(settings, data, out, arguments.workers)
        results.save(out / "results.json")
        write_report(results, out)
    print(f"report: {out / 'report.html'}; figures: {out / 'results.json'}, {out / 'results.csv'}")


if __name__ == "__main__":
    run(main)
