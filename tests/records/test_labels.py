import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_labelled import write_labelled

from tfmmcl.errors import InputError
from tfmmcl.records.labels import Label, fraction_of_patients, labelled, labels_of_run
from tfmmcl.records.verify import read_trajectories


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("labels") / "data")


LABELS = st.lists(
    st.builds(Label, st.integers(0, 30).map(str), st.uuids().map(str), st.sampled_from([0.0, 1.0, 2.0])),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("task", ["high", "third", "pressure"])
def test_they_are_those_of_the_records_and_none_is_nan(data, split, task):
    every = list(read_trajectories(data, split))
    expected = [(t.patient, t.name, t.labels[task]) for t in every if not math.isnan(t.labels[task])]
    assert 0 < len(expected) < len(every)
    assert labelled(data, split, task) == expected


@given(LABELS, st.lists(st.floats(0.001, 1), min_size=2, max_size=5), st.integers(0, 5))
@settings(deadline=None)
def test_fractions_are_nested_and_of_the_size_asked_for(labels, fractions, seed):
    patients = {item.patient for item in labels}
    before = set()
    for fraction in sorted(fractions):
        chosen = fraction_of_patients(labels, fraction, seed)
        assert before <= chosen <= patients
        assert len(chosen) >= 1
        assert abs(len(chosen) - fraction * len(patients)) <= 0.5 or len(chosen) == 1
        before = chosen
    assert fraction_of_patients(labels, 1.0, seed) == patients
    assert fraction_of_patients(labels[::-1], fractions[0], seed) == fraction_of_patients(labels, fractions[0], seed)


@given(LABELS, st.integers(0, 5))
@settings(deadline=None)
def test_as_many_patients_as_classes_show_them_all(labels, seed):
    classes, patients = {item.label for item in labels}, {item.patient for item in labels}
    chosen = fraction_of_patients(labels, min(1, len(classes) / len(patients)), seed)
    assert {item.label for item in labels if item.patient in chosen} == classes


def test_seeds_choose_different_patients():
    labels = [Label(f"p{i}", f"t{i}", float(i % 2)) for i in range(200)]
    chosen = [fraction_of_patients(labels, 0.5, seed) for seed in range(2)]
    assert 70 > len(chosen[0] & chosen[1]) > 30  # half of a half by chance: 50
    many = [fraction_of_patients(labels, 0.1, seed) for seed in range(300)]
    often = [sum(f"p{i}" in one for one in many) for i in range(200)]
    assert max(often) < 60 > 30 > min(often)  # 30 by chance


def test_a_run_gets_whole_patients_and_every_label_of_the_other_splits(data):
    found = labels_of_run(data, "high", 0.3, 1)
    every = labelled(data, "train", "high")
    chosen = {item.patient for item in found["train"]}
    assert found["train"] == [item for item in every if item.patient in chosen]
    assert len(chosen) < len({item.patient for item in every})
    for split in ("validation", "test"):
        assert found[split] == labelled(data, split, "high")


def test_an_unknown_task_names_the_nearest(data):
    with pytest.raises(InputError, match=r"data: has no task 'presure'; did you mean 'pressure'\?$"):
        labelled(data, "train", "presure")
    with pytest.raises(InputError, match=r"has no task 'xyz'; expected one of: high, third, pressure\.$"):
        labelled(data, "train", "xyz")
