"""Prepares a data set: raw data (or a generator) → trajectories → TFRecord shards, and a report to look at.

Whatever stops it, the same command continues with the shards already made.
"""

from __future__ import annotations

import os

from tfmmcl.command import Parser, run

RUNNERS = ("DirectRunner", "FlinkRunner", "DataflowRunner", "SparkRunner")


def main() -> None:
    """Parses the command line and writes the data set."""
    parser = Parser(description=__doc__)
    parser.add_argument("--cohort", required=True, help="the cohort file, such as configs/cohorts/demo.yaml")
    parser.add_argument("--root", help="the folder with the raw data; none for a synthetic cohort")
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--id-key",
        metavar="FILE",
        help="file with the key that ids are hashed with (default: TFMMCL_ID_KEY, or else a key made once and kept in "
        "your configuration folder)",
    )
    parser.add_argument("--runner", choices=RUNNERS, help="make the shards with Apache Beam (pip install tfmmcl[beam])")
    parser.add_argument(
        "--runner-options", default="", metavar="OPTIONS", help='such as "--flink_master host:8081"; with --runner'
    )
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers: found {arguments.workers}, expected at least 1")
    if arguments.runner_options and not arguments.runner:
        parser.error("--runner-options: needs --runner")

    from tfmmcl.cohorts.catalog import load_cohort, make_cohort
    from tfmmcl.records.beam import on_beam
    from tfmmcl.records.report import NAME
    from tfmmcl.records.summary import notes, summarise
    from tfmmcl.records.workers import on_this_machine
    from tfmmcl.records.writer import write_dataset

    settings = load_cohort(arguments.cohort)
    cohort = make_cohort(settings, arguments.root, arguments.id_key)
    executor = (
        on_beam(arguments.runner, arguments.runner_options) if arguments.runner else on_this_machine(arguments.workers)
    )
    data = write_dataset(cohort, settings, arguments.out, executor=executor, report=True)
    print(summarise(data))
    print(notes(data), end="")
    print(f"report: {data.path / NAME}")


if __name__ == "__main__":
    run(main)
