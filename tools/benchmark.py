"""Measures tfmmcl, and prints the ratio to a peer that is run beside it. KERAS_BACKEND=jax measures steps on JAX."""

from __future__ import annotations

from pathlib import Path

from tfmmcl.command import Parser, run

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parses the command line and runs one benchmark."""
    parser = Parser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    common = Parser(add_help=False)
    common.add_argument("--json", metavar="FILE", help="where to write the figures")

    prepare = what.add_parser(
        "prepare", parents=[common], help="raw records to shards, against a plain wfdb and pandas loop"
    )
    prepare.add_argument(
        "--patients", type=int, default=24, help="records in the smaller folder (default: %(default)s)"
    )
    prepare.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")

    step = what.add_parser("step", parents=[common], help="the training step, on input made up")
    _add_settings(step)
    step.add_argument("--width", type=int, help="filters of the first stage; every later stage has twice as many")
    step.add_argument("--recurrent-units", type=int, help="units of each GRU layer")
    step.add_argument("--batch", type=int, nargs="+", default=[4], help="trajectories in a step (default: 4)")
    step.add_argument(
        "--precision",
        nargs="+",
        default=["float32"],
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
        help="(default: float32)",
    )
    step.add_argument("--convolution", nargs="+", default=[], help="values of encoder.signal.convolution")

    loss = what.add_parser("loss", parents=[common], help="NT-Xent with its gradient")
    sizes = [128, 256, 512, 1024, 2048, 4096]
    loss.add_argument("--batch", type=int, nargs="+", default=sizes, help="trajectories in a batch (default: 128…4096)")

    pipeline = what.add_parser("pipeline", parents=[common], help="records to batches of views, stage by stage")
    _add_settings(pipeline)
    pipeline.add_argument("--data", metavar="DIR", help="a prepared data set (default: one made for the purpose)")
    pipeline.add_argument(
        "--trajectories", type=int, default=512, help="how many to time in each round (default: %(default)s)"
    )
    size = what.add_parser("size", parents=[common], help="the same work on more and more trajectories")
    _add_settings(size, "demo.yaml")
    size.add_argument("--times", type=int, nargs="+", default=[1, 4, 16], help="multiples of the cohort's patients")
    embed = what.add_parser("embed", parents=[common], help="a data set to embeddings, against model.predict alone")
    _add_settings(embed, "demo.yaml")
    embed.add_argument("--trajectories", type=int, default=10_000, help="about how many (default: %(default)s)")
    for timed in (step, loss):
        timed.add_argument("--xla", nargs="+", default=["auto"], choices=("auto", "off", "on"), help="(default: auto)")
    for timed in (step, loss, pipeline, embed):
        timed.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    for timed in (step, loss, pipeline):
        timed.add_argument("--peer", choices=("torch",), help="compare with it; pip install -e '.[peer]' installs it")

    arguments = vars(parser.parse_args())
    benchmark, file = arguments.pop("what"), arguments.pop("json")

    from importlib import import_module

    from tfmmcl.benchmarks.table import write_json

    figures = import_module(f"tfmmcl.benchmarks.{benchmark}").run(**arguments)
    if file:
        write_json(file, figures)


def _add_settings(parser: Parser, config: str = "paper.yaml") -> None:
    parser.add_argument("--config", default=CONFIGS / config, help=f"settings (default: configs/{config})")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", default=[], metavar="key=value", help="such as optimizer.name=lamb"
    )


if __name__ == "__main__":
    run(main)
