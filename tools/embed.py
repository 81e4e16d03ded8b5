"""Embeds trajectories with an exported model, into one Parquet file: a data set, or lines of JSON in physical units.

Whatever stops it, the same command goes on where it was.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from tfmmcl.command import Parser, run


def main() -> None:
    """Parses the command line and writes the file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, help="the SavedModel's folder, such as RUN_DIR/saved_model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="a prepared data set's folder")
    source.add_argument(
        "--jsonl",
        metavar="FILE",
        help="one JSON object a line with patient, trajectory, perhaps split, and the model's inputs as nested lists, "
        "null where missing; - reads standard input",
    )
    parser.add_argument("--out", required=True, help="the Parquet file to make")
    parser.add_argument("--batch-size", type=int, default=64, help="trajectories at once (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size: found {arguments.batch_size}, expected at least 1")

    from tfmmcl.evaluation.embed import embed
    from tfmmcl.evaluation.parts import check_new
    from tfmmcl.evaluation.served import Served
    from tfmmcl.evaluation.sources import DataSetSource, JsonLines
    from tfmmcl.records.manifest import DataSet

    data = DataSet.open(arguments.data) if arguments.data else None
    check_new(arguments.out)  # before TensorFlow loads
    standard_input = arguments.jsonl in (None, "-")
    with nullcontext(sys.stdin.buffer) if standard_input else open(arguments.jsonl, "rb") as lines:
        model = Served(arguments.model)
        if data:
            model.check(data)
        trajectories = DataSetSource(data) if data else JsonLines(lines, arguments.jsonl)
        made = embed(model, trajectories, arguments.out, batch_size=arguments.batch_size)
    outputs = ", ".join(f"{name} {kind}" for name, kind in made.outputs.items())
    rate = (made.trajectories - made.before) / made.seconds
    print(f"{arguments.out}: {made.trajectories:,} trajectories, {outputs}; {rate:,.0f} trajectories/s")


if __name__ == "__main__":
    run(main)
