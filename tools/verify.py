"""Verifies a data set: every checksum, count and value range, and that nothing leaks from split or label."""

from __future__ import annotations

from tfmmcl.command import Parser, run

SHOWN = 50  # problems printed


def main() -> None:
    """Parses the command line and verifies the data set."""
    parser = Parser(description=__doc__)
    parser.add_argument("data", help="the data set's folder")
    arguments = parser.parse_args()

    from tfmmcl.errors import InputError
    from tfmmcl.records.manifest import DataSet
    from tfmmcl.records.summary import summarise
    from tfmmcl.records.verify import verify

    data = DataSet.open(arguments.data)
    problems = verify(data)
    if problems:
        lines = problems[:SHOWN]
        if len(problems) > 1:
            lines.append(
                f"{len(problems)} problems in all" + (f", the first {SHOWN} shown." if problems[SHOWN:] else ".")
            )
        raise InputError(*lines)
    print(summarise(data))
    print(
        "verified: every checksum, count and value range holds, no patient is in two splits, and no input gives a "
        "label away by itself"
    )


if __name__ == "__main__":
    run(main)
