"""What an exported model says about its inputs, and how it refuses others: in TensorFlow alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from tfmmcl.cohorts.trajectory import Feature, Spec
from tfmmcl.records.statistics import Statistics

Function = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def input_specs(spec: Spec, names: Iterable[str], batch: int | None = None) -> dict[str, tf.TensorSpec]:
    """Returns name → shape and type of a model's inputs.

    Args:
        spec: Of the data set that it was trained on.
        names: Which of `signals` `(B, T, Z, C)`, `structured` `(B, T, M)` and `statics` `(B, L)` it takes.
        batch: B. Default None: any.
    """
    shapes = spec.shapes
    return {name: tf.TensorSpec((batch, *shapes[name]), tf.float32, name=name) for name in names}


def output_shapes(serve: tf.types.experimental.ConcreteFunction) -> dict[str, tuple[int | None, ...]]:
    """Returns name → shape of a function's outputs, the batch axis first."""
    return {name: tuple(output.shape) for name, output in serve.structured_outputs.items()}


def in_words(spec: Spec, quote: str = "") -> dict[str, str]:
    """Returns what the axes of each input are, after the batch's, with names between quotes."""
    windows = f"{spec.windows} windows"
    rate = f"{spec.window_seconds:g} s at {spec.sampling_rate_hz:g} Hz"
    return {
        "signals": f"{windows} of {spec.samples} samples ({rate}) of {len(spec.leads)} leads "
        f"({', '.join(f'{quote}{lead}{quote}' for lead in spec.leads)}) in mV",
        "structured": f"{windows} of {len(spec.structured)} features ({_listed(spec.structured, quote)})",
        "statics": f"{len(spec.statics)} features ({_listed(spec.statics, quote)})",
    }


def checked(function: Function, spec: Spec) -> Callable[..., dict[str, tf.Tensor]]:
    """Returns a function that says in one sentence which input does not fit, before it calls another.

    TensorFlow itself takes any shape at a signature, and fails later or not at all: of signals that are too long, the
    rest would be ignored.

    Args:
        function: Of a dictionary of inputs.
        spec: What fits.
    """
    words = in_words(spec)

    def call(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        specs = input_specs(spec, inputs)
        # Without a static shape, which TensorFlow would believe and so drop the checks.
        given = {
            name: tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=tf.TensorShape(None))
            for name, tensor in inputs.items()
        }
        fit = []
        for name, tensor in given.items():
            found, expected = _sizes(tf.shape(tensor)[1:]), ", ".join(map(str, specs[name].shape[1:]))
            sentence = tf.strings.join(
                [f"{name}: found shape (batch, ", found, f"), expected (batch, {expected}): {words[name]}."]
            )
            fit.append(tf.debugging.Assert(tf.equal(found, expected), [sentence]))
        with tf.control_dependencies(fit):
            counts = tf.stack([tf.shape(tensor)[0] for tensor in given.values()])
        sentence = tf.strings.join(
            [f"{', '.join(given)}: found ", _sizes(counts), " trajectories, expected as many of each."]
        )
        same = tf.debugging.Assert(tf.reduce_all(tf.equal(counts, counts[0])), [sentence])
        with tf.control_dependencies([same]):
            return function({name: tf.ensure_shape(given[name], specs[name].shape) for name in given})

    return call


def description(spec: Spec, statistics: Statistics, names: Iterable[str], card: str) -> dict[str, tf.Tensor]:
    """Returns what the signature `describe` gives: every feature by place, name and unit, and the model card.

    `saved_model_cli show` prints the names of a signature's outputs and no more, so the names say it; a feature's
    value is its mean over the training split, which also stands in where it is missing.

    Args:
        spec: Names and units.
        statistics: Of the training split.
        names: The model's inputs.
        card: The model card.
    """
    leads = [Feature(name=lead, unit=f"mV, {spec.sampling_rate_hz:g} Hz") for lead in spec.leads]
    features = {
        "signals": (leads, statistics.signals_mean),
        "structured": (spec.structured, statistics.structured_mean),
        "statics": (spec.statics, statistics.statics_mean),
    }
    said = {"model_card": tf.constant(card)}
    for name in names:
        items, means = features[name]
        width = len(str(len(items) - 1))
        for index, (item, mean) in enumerate(zip(items, means)):
            said[f"{name}[{index:0{width}d}]: {item.named()}"] = tf.constant(mean, tf.float32)
    return said


def _listed(features: Iterable[Feature], quote: str) -> str:
    return ", ".join(feature.named(quote) for feature in features)


def _sizes(numbers: tf.Tensor) -> tf.Tensor:
    return tf.strings.reduce_join(tf.strings.as_string(numbers), separator=", ")
