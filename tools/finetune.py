"""Fine-tunes an encoder, pre-trained or new, on one of a data set's tasks, and scores its predictions."""

from __future__ import annotations

from pathlib import Path

from tfmmcl.command import Parser, run

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parses the command line, fine-tunes, exports, and scores the validation and test splits."""
    parser = Parser(description=__doc__)
    parser.add_argument("--task", help="one of the data set's tasks (default: the settings')")
    parser.add_argument("--data", help="a prepared data set's folder (default: the settings')")
    parser.add_argument("--encoder", help="the folder of a finished pre-training run (default: a new encoder)")
    parser.add_argument("--config", help="settings (default: configs/finetune.yaml)")
    parser.add_argument("--out", help="the run's folder (default: the next of runs/TASK-001, runs/TASK-002, …)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out after its last epoch")
    parser.add_argument("--allow-changes", action="store_true", help="with --resume: settings may change")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as training.frozen_epochs=all")
    arguments = parser.parse_intermixed_args()

    from tfmmcl.training.run_directory import FinetuneDirectory
    from tfmmcl.training.start_finetuning import report, resume_settings, start_settings

    if arguments.resume:
        if not arguments.out:
            parser.error("--resume: expected --out with the folder of the run to continue")
        if arguments.config or arguments.task or arguments.encoder:
            parser.error("--resume: a run continues with its own settings; expected neither task, encoder nor config")
        directory = FinetuneDirectory(arguments.out)
        settings = resume_settings(
            directory, arguments.data, arguments.overrides, allow_changes=arguments.allow_changes
        )
    else:
        config = arguments.config or CONFIGS / "finetune.yaml"
        settings = start_settings(config, arguments.task, arguments.data, arguments.encoder, arguments.overrides)
        directory = FinetuneDirectory(arguments.out) if arguments.out else FinetuneDirectory.next(settings.task)
        directory.check_new()

    from tfmmcl.evaluation.scoring import score
    from tfmmcl.export import export_run
    from tfmmcl.files import sole_writer
    from tfmmcl.records.labels import find_task
    from tfmmcl.records.manifest import DataSet
    from tfmmcl.training.finetune import finetune

    with sole_writer(directory.path):
        result = finetune(settings, directory, resume=arguments.resume)
        result |= score(directory, find_task(DataSet.open(settings.data.path), settings.task))
        export_run(directory, result=result)
        directory.write_result(result)  # last: it says that the run is complete
    print(report(result, directory))


if __name__ == "__main__":
    run(main)
