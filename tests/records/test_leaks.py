"""What makes predictions look better than they are is planted in a sound data set, and `verify` finds it."""

import dataclasses
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from small_labelled import make_spec, make_trajectory, rewritten, write_labelled

from tfmmcl.records.leaks import FEWEST, Inputs
from tfmmcl.records.verify import read_trajectories, verify

SPEC = make_spec(leads=())
CONTENT = ("signals", "structured", "statics")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.default_rng(0)

    def blur(trajectory):
        # As they are written, lactate and rate are nearly all that the labels follow.
        rates = trajectory.structured + rng.normal(0, 10, trajectory.structured.shape).astype(np.float32)
        noisy = with_static(trajectory, 0, trajectory.statics[0] + rng.normal())
        return dataclasses.replace(noisy, structured=rates)

    return rewritten(write_labelled(folder / "written"), folder / "data", blur)


def found(data):
    """Returns what `verify` says, but for checksums, which `rewritten` leaves as they were."""
    return [problem for problem in verify(data) if "SHA-256" not in problem]


def leaks(data, edit, out):
    """Returns what `verify` says after every trajectory went through a function."""
    return found(rewritten(data, out / "data", edit))


def with_static(trajectory, index, value):
    statics = trajectory.statics.copy()
    statics[index] = value
    return dataclasses.replace(trajectory, statics=statics)


def test_inputs_that_only_follow_the_label_are_no_leak(sound):
    assert found(sound) == []


def test_a_measurement_that_all_labels_are_made_of_is_named_for_each(tmp_path):
    named = [problem.split("'")[1:4:2] for problem in verify(write_labelled(tmp_path / "data")) if "lactate" in problem]
    assert named == [["lactate", "high"], ["lactate", "third"], ["lactate", "third"], ["lactate", "pressure"]]


def test_a_static_that_is_the_label_is_named(sound, tmp_path):
    def plant(trajectory):
        return with_static(trajectory, 1, trajectory.labels["high"] * 10 + trajectory.statics[1] % 5)

    labelled = sum(count.labels["high"].labelled for count in sound.manifest.splits.values())
    assert leaks(sound, plant, tmp_path) == [
        f"{tmp_path / 'data'}: static 'age' tells by its value alone, in all {labelled} trajectories that have both, "
        "whether 'high' is 1."
    ]


def test_a_feature_that_is_measured_only_in_those_with_the_outcome_is_named(sound, tmp_path):
    def plant(trajectory):
        structured = trajectory.structured.copy()
        structured[1, 1] = 0 if trajectory.labels["high"] == 1 else np.nan
        return dataclasses.replace(trajectory, structured=structured)

    (problem,) = leaks(sound, plant, tmp_path)
    assert "'noise' of window 1 tells by being missing or not" in problem
    assert problem.endswith("whether 'high' is 1.")


def test_a_class_among_several_that_is_given_away_is_named(sound, tmp_path):
    (problem,) = leaks(sound, lambda item: with_static(item, 1, item.labels["third"] == 2), tmp_path)
    assert "static 'age' tells by its value alone" in problem
    assert problem.endswith("whether 'third' is 'top'.")


def test_a_number_in_another_unit_is_named(sound, tmp_path):
    # The pressure says as much of the other two tasks, which come first.
    *_, problem = leaks(sound, lambda item: with_static(item, 1, item.labels["pressure"] / 7.50062), tmp_path)
    assert problem.endswith("static 'age' gives task 'pressure' away: they are perfectly correlated.")


def test_one_exception_is_enough_for_an_input_to_be_none_by_itself(sound, tmp_path):
    def plant(trajectory):
        label = trajectory.labels["high"]
        first = trajectory.name == "patient0/0"
        return with_static(trajectory, 1, 1 - label if first else label)

    assert math.isfinite(make_trajectory(make_spec(), "patient0", "patient0/0", 0).labels["high"])
    assert leaks(sound, plant, tmp_path) == []


def test_a_trajectory_of_the_test_split_that_is_in_training_under_another_name_is_named(sound, tmp_path):
    first = next(read_trajectories(sound, "test"))

    def plant(trajectory):
        if trajectory.name != "patient5/0":
            return trajectory
        return dataclasses.replace(trajectory, **{key: getattr(first, key) for key in CONTENT})

    (problem,) = leaks(sound, plant, tmp_path)
    assert problem.endswith(
        (
            f"'patient5/0' of train has the same content as '{first.name}' of test.",
            f"'{first.name}' of test has the same content as 'patient5/0' of train.",
        )
    )


@given(st.integers(0, 10_000), st.integers(0, 60), st.floats(0, 0.5), st.sampled_from(["value", "missing", "none"]))
def test_an_input_is_named_where_sorting_it_sorts_the_labels(seed, count, missing, planted):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count).astype(float)
    columns = rng.normal(size=(count, 2 + 2 * 2))
    columns[rng.uniform(size=columns.shape) < missing] = np.nan
    if planted == "value":
        columns[:, 3] = rng.choice([-1, 1]) * (labels * 10 + columns[:, 3])
    if planted == "missing":
        columns[:, 3] = np.where(labels == 1, 0.0, np.nan)
    inputs = Inputs(SPEC)
    for row, label in zip(columns, labels):
        made = make_trajectory(SPEC, "p", "p/0", 0)
        inputs.add(
            dataclasses.replace(
                made,
                statics=row[:2],
                structured=row[2:].reshape(2, 2),
                labels={"high": label, "third": np.nan, "pressure": np.nan},
            )
        )
    expected = []
    for name, column in zip(inputs.names, columns.T):
        for way, keys in (("its value", column), ("being missing", np.isnan(column).astype(float))):
            ones, zeros = (keys[np.isfinite(keys) & (labels == label)] for label in (1, 0))
            total = len(ones) + len(zeros)
            enough = min(len(ones), len(zeros)) >= FEWEST and 2 * 6 / math.comb(total, len(ones)) < 1e-6
            if enough and (ones.min() > zeros.max() or ones.max() < zeros.min()):
                expected.append(f"{name} tells by {way}")
    problems = list(inputs.problems())
    assert len(problems) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(problems, expected))
