"""Pre-trains an encoder. With no arguments: on a synthetic cohort, made once, in about two minutes."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path

from tfmmcl.command import Parser, run

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parses the command line, prepares the cohort if the settings name one, and pre-trains."""
    parser = Parser(description=__doc__)
    parser.add_argument("--config", help="settings (default: configs/demo.yaml)")
    parser.add_argument("--data", help="a prepared data set's folder, instead of the settings' own")
    parser.add_argument("--out", help="the run's folder (default: the next of runs/NAME-001, runs/NAME-002, …)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out after its last checkpoint")
    parser.add_argument("--allow-changes", action="store_true", help="with --resume: other settings may change too")
    parser.add_argument("--workers", help="HOST:PORT of every machine, comma-separated, the same list on each of them")
    parser.add_argument("--worker", type=int, help="which of --workers this is, from 0 (default: $SLURM_PROCID)")
    parser.add_argument("--profile", metavar="FROM,TO", help="write a profiler trace of these steps, counted from 1")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as optimizer.learning_rate=3e-4")
    arguments = parser.parse_intermixed_args()

    from tfmmcl.training.run_directory import RunDirectory
    from tfmmcl.training.start import is_first_worker, join_workers, report, resume_settings, start_settings

    if arguments.profile:
        if not re.fullmatch(r"\d+,\d+", arguments.profile):
            parser.error(f"--profile: found {arguments.profile}, expected FROM,TO, such as 20,25")
        arguments.overrides.append(f"watching.profile=[{arguments.profile}]")
    if arguments.workers:
        join_workers(arguments.workers, arguments.worker)
        arguments.overrides.append("training.distribution=multi_worker")
    if arguments.resume:
        if not arguments.out:
            parser.error("--resume: expected --out with the folder of the run to continue")
        if arguments.config:
            parser.error("--resume: a run continues with its own settings; expected no --config beside it")
        directory = RunDirectory(arguments.out)
        settings = resume_settings(
            directory, arguments.data, arguments.overrides, allow_changes=arguments.allow_changes
        )
    else:
        config = Path(arguments.config or CONFIGS / "demo.yaml")
        directory = RunDirectory(arguments.out) if arguments.out else RunDirectory.next(config.stem)
        directory.check_new()
        settings = start_settings(config, arguments.data, arguments.overrides)

    from tfmmcl.export import export_run
    from tfmmcl.files import sole_writer
    from tfmmcl.training.pretrain import pretrain

    with sole_writer(directory.path) if is_first_worker() else nullcontext():
        result = pretrain(settings, directory, resume=arguments.resume)
        if result is None:  # another worker is the chief
            return
        export_run(directory, result=result)
        directory.write_result(result)  # last: it says that the run is complete
    print(report(result, directory, Path(sys.argv[0]).parent))


if __name__ == "__main__":
    run(main)
