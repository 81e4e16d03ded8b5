"""Measures tfmmcl against a peer that is run beside it, and prints the ratio."""

from __future__ import annotations

import json
from pathlib import Path

from tfmmcl.command import Parser, run


def main() -> None:
    """Parses the command line and runs one benchmark."""
    parser = Parser(description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    prepare = what.add_parser("prepare", help="raw records to shards, against a plain wfdb and pandas loop")
    prepare.add_argument(
        "--patients", type=int, default=24, help="records in the smaller folder (default: %(default)s)"
    )
    prepare.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    prepare.add_argument("--json", metavar="FILE", help="where to write the figures")
    arguments = parser.parse_args()

    from tfmmcl.benchmarks import prepare as benchmark

    figures = benchmark.run(arguments.patients, arguments.workers)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
