import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.errors import InputError
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.summary import notes, summarise


def change(data, edit):
    """Edits the manifest as plain JSON."""
    file = data.path / "manifest.json"
    tree = json.loads(file.read_text())
    edit(tree)
    file.write_text(json.dumps(tree))


def refused(path):
    with pytest.raises(InputError) as error:
        DataSet.open(path)
    assert str(error.value).isprintable()
    return str(error.value)


def test_a_folder_that_does_not_exist_or_holds_no_data_set_is_one_sentence(tmp_path):
    assert refused(tmp_path / "no").endswith("no: no such data set folder; make one with tools/prepare.py.")
    sentence = "manifest.json: no such file; expected a data set made by tools/prepare.py."
    assert refused(tmp_path).endswith(sentence)


def test_a_file_instead_of_a_folder_is_one_sentence(small_data):
    assert "no such data set folder" in refused(small_data.path / "manifest.json")


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "[" * 100_000, "1" * 5000, "\ufeff{}"])
def test_malformed_json_is_one_sentence(copied, text):
    (copied.path / "manifest.json").write_text(text)
    assert "manifest.json: cannot be read as JSON" in refused(copied.path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"'])
def test_json_that_is_no_mapping_is_one_sentence(copied, text):
    (copied.path / "manifest.json").write_text(text)
    assert "manifest.json: 'the whole file' is wrong" in refused(copied.path)


@pytest.mark.parametrize("key", ["spec", "shards", "splits", "missing_sample", "statistics_sha256", "provenance"])
def test_a_missing_key_is_named(copied, key):
    change(copied, lambda tree: tree.pop(key))
    assert refused(copied.path).endswith(f"manifest.json: '{key}' is wrong: field required.")


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda tree: tree.update(extra=1), "extra"),
        (lambda tree: tree.update({"two\nlines": 1}), r"two\nlines"),
        (lambda tree: tree["shards"][0].update(extra=1), "shards.0.extra"),
        (lambda tree: tree["spec"].update(extra=1), "spec.extra"),
        (lambda tree: tree.update(format_version=2), "format_version"),
        (lambda tree: tree.update(missing_sample=0), "missing_sample"),
        (lambda tree: tree["shards"][0].update(records=-1), "shards.0.records"),
        (lambda tree: tree["shards"][0].update(split="dev"), "shards.0.split"),
        (lambda tree: tree["shards"][0].update(sha256="0" * 63), "shards.0.sha256"),
        (lambda tree: tree["splits"].pop("validation"), "splits"),
        (lambda tree: tree["spec"].update(leads=["II"]), "spec"),
    ],
)
def test_a_key_that_is_unknown_or_wrong_is_named(copied, edit, key):
    change(copied, edit)
    assert f"manifest.json: '{key}' is wrong: " in refused(copied.path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda tree: tree["shards"][0].update(records=10**12),
        lambda tree: tree["spec"].update(windows=10**9),
        lambda tree: tree["spec"].update(sampling_rate_hz=10**6),
    ],
)
def test_counts_and_shapes_that_the_files_are_too_small_for_are_refused(copied, edit):
    change(copied, edit)
    assert "bytes, expected at least " in refused(copied.path)


@pytest.mark.parametrize("path", ["../x.tfrecord", "/etc/passwd", "a/b", "..", ".", "", "x/../y", "a\0b"])
def test_a_shard_outside_the_folder_is_refused(copied, path):
    change(copied, lambda tree: tree["shards"][0].update(path=path))
    sentence = "'shards.0.path' is wrong: expected a plain file name inside the data set's folder."
    assert refused(copied.path).endswith(sentence)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_arbitrary_changes_to_the_manifest_open_or_are_one_sentence(small_data, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    tree = json.loads((small_data.path / "manifest.json").read_text())
    node, key = tree, data.draw(st.sampled_from(sorted(tree)))
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    values = st.none() | st.booleans() | st.integers() | st.text() | st.floats()
    node[key] = data.draw(values | st.lists(values, max_size=2) | st.dictionaries(st.text(), values, max_size=2))
    (folder / "manifest.json").write_text(json.dumps(tree))
    sentence = ""
    try:
        DataSet.open(folder)
    except InputError as error:
        sentence = str(error)
    assert len(sentence.splitlines()) <= 1


def test_a_shard_that_is_missing_or_of_another_size_is_one_sentence(copied):
    shard = copied.path / next(s.path for s in copied.manifest.shards if s.split == "train")
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{shard.name}: found {size - 1} bytes, expected {size}"):
        copied.shards("train")
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name}: no such file; the manifest lists it with [0-9]+ records"):
        copied.shards("train")


def test_the_fingerprint_follows_the_records_and_not_the_place(small_data, copied):
    assert copied.fingerprint == small_data.fingerprint
    change(copied, lambda tree: tree["shards"][0].update(sha256="0" * 64))
    assert DataSet.open(copied.path).fingerprint != small_data.fingerprint


FLOW = [
    {"level": "patients", "seen": 1234, "lost": {"no stay": 12}},
    {"level": "anchors", "seen": 20, "lost": {"it is too short": 7}},
    {"level": "trajectories", "seen": 13, "lost": {}},
]


def test_the_summary_gives_the_flow_and_only_a_new_data_set_gives_examples(copied):
    change(copied, lambda tree: tree["provenance"].update(flow=FLOW, notes=["age: 3 values are 90+"]))
    data = DataSet.open(copied.path)
    lines = ["1,234 patients", "   12   lost: no stay", "   20 anchors", "    7   lost: it is too short"]
    tail = ["   13 trajectories"]
    assert summarise(data).splitlines()[-5:] == [*lines, *tail]
    assert notes(data) == "note: age: 3 values are 90+\n"
    data = dataclasses.replace(data, examples={"it is too short": ["a103l", "line\nbreak", "\ud800"]})
    examples = [f"          such as {shown}" for shown in ("a103l", r"line\nbreak", r"\ud800")]
    assert summarise(data).splitlines()[-8:] == [*lines, *examples, *tail]


def test_a_data_set_of_an_earlier_version_opens(copied):
    def as_before(tree):
        del tree["provenance"]["flow"], tree["provenance"]["notes"]
        tree["provenance"]["excluded"] = {"a103l": "it is too short"}

    change(copied, as_before)
    assert DataSet.open(copied.path).manifest.provenance.flow == []
    assert "train: " in summarise(DataSet.open(copied.path))


def test_the_summary_gives_counts_and_prevalences(copied):
    data = DataSet.open(copied.path)
    text = summarise(data)
    count = data.manifest.splits["train"]
    label = count.labels["mortality_24h"]
    line = f"train: {count.patients} patients, {count.trajectories} trajectories; "
    assert line in text
    assert f"mortality_24h {label.positive}/{label.labelled}" in text
    assert "2 leads (II, V1) at 100 Hz" in text
