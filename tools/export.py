"""Exports a run's model: physical units in, embedding or probability out, preprocessing inside."""

from __future__ import annotations

from tfmmcl.command import Parser, run


def main() -> None:
    """Parses the command line and writes the model."""
    parser = Parser(description=__doc__)
    parser.add_argument("run", help="the folder of a finished pre-training or fine-tuning run")
    parser.add_argument("--out", required=True, help="the folder to make")
    parser.add_argument("--data", help="where the run's data set is, if it has moved")
    parser.add_argument(
        "--format",
        choices=("saved_model", "litert"),
        default="saved_model",
        help="saved_model: TensorFlow, any batch size; litert: small devices, one trajectory at a time "
        "(default: %(default)s)",
    )
    parser.add_argument("--quantize", choices=("int8",), help="with litert: weights in 8 bits (default: float32)")
    parser.add_argument("--xla", action="store_true", help="with saved_model: XLA compiles it when it is first called")
    arguments = parser.parse_args()
    if arguments.quantize and arguments.format != "litert":
        parser.error("--quantize: needs --format litert")
    if arguments.xla and arguments.format != "saved_model":
        parser.error("--xla: needs --format saved_model")

    from tfmmcl.training.run_directory import open_run

    directory = open_run(arguments.run)  # a wrong folder is said at once, before TensorFlow loads

    from tfmmcl.export import export_litert, export_run

    if arguments.format == "litert":
        made = export_litert(directory, arguments.out, arguments.data, quantize=arguments.quantize)
        print(f"{made.path}: {made}")
    else:
        print(export_run(directory, arguments.out, arguments.data, xla=arguments.xla))


if __name__ == "__main__":
    run(main)
