"""Embeds every trajectory of a data set with an exported model, into one Parquet file."""

from __future__ import annotations

from pathlib import Path

from tfmmcl.command import Parser, run


def main() -> None:
    """Parses the command line and writes the file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, help="the SavedModel's folder, such as RUN_DIR/saved_model")
    parser.add_argument("--data", required=True, help="a prepared data set's folder")
    parser.add_argument("--out", required=True, help="the Parquet file to make")
    parser.add_argument("--batch-size", type=int, default=64, help="trajectories at once (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size: found {arguments.batch_size}, expected at least 1")

    from tfmmcl.errors import InputError
    from tfmmcl.records.manifest import DataSet
    from tfmmcl.training.run_directory import write_complete

    data, out = DataSet.open(arguments.data), Path(arguments.out)
    if out.exists():
        raise InputError(f"{out}: already exists; expected the name of a new file.")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; expected one to write {out.name} in.")

    from tfmmcl.evaluation.embed import embed

    frame = embed(arguments.model, data, batch_size=arguments.batch_size)
    write_complete(out, frame.write_parquet)
    outputs = ", ".join(f"{name} {frame.schema[name]}" for name in frame.columns[3 + len(data.spec.tasks) :])
    print(f"{out}: {frame.height:,} trajectories, {outputs}")


if __name__ == "__main__":
    run(main)
