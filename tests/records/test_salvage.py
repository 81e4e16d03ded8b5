import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmmcl.records.framing import read_records, write_record
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.protos import example_pb2
from tfmmcl.records.salvage import sound_part
from tfmmcl.records.verify import read_trajectories


def names(data, split="train"):
    return [trajectory.name for trajectory in read_trajectories(data, split)]


def bounds(path):
    """Returns where each record begins, and where the last one ends."""
    found = [0]
    for record in read_records(path):
        found.append(found[-1] + 16 + len(record))
    return found


def first_shard(data):
    return next(shard for shard in data.manifest.shards if shard.split == "train" and shard.records > 3)


def test_of_a_sound_data_set_nothing_is_lost_and_nothing_copied(copied, tmp_path):
    (folder := tmp_path / "sound").mkdir()
    sound, lost = sound_part(copied, ("train", "validation"), folder)
    assert lost == {"train": [], "validation": []}
    assert sound.shards("train") == copied.shards("train")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("where", "kept", "sentence"),
    [
        ("data", lambda n: n - 1, "record 1 is damaged (checksum mismatch)."),
        ("length", lambda n: 1, "record 1 has a damaged length (checksum mismatch)."),
        ("cut", lambda n: 1, "record 1 is truncated: found"),
        ("gone", lambda n: 0, "record 0 is missing."),
    ],
)
def test_what_is_sound_is_kept_and_every_other_record_is_named(copied, tmp_path, where, kept, sentence):
    shard = first_shard(copied)
    path, expected = copied.path / shard.path, names(copied)
    begin, end = bounds(path)[1:3]
    whole = bytearray(path.read_bytes())
    if where == "cut":
        path.write_bytes(whole[: end - 20])
    elif where == "gone":
        path.unlink()
    else:
        whole[begin + (3 if where == "length" else 40)] ^= 1
        path.write_bytes(whole)
    (folder := tmp_path / "sound").mkdir()
    sound, lost = sound_part(copied, ("train",), folder)
    assert len(lost["train"]) == shard.records - kept(shard.records)
    assert f"{path}: {sentence}" in lost["train"][0]
    assert sound.count("train") == copied.count("train") - len(lost["train"])
    found = names(sound)
    assert len(found) == sound.count("train")
    assert set(found) < set(expected)
    assert sound.fingerprint == copied.fingerprint


def test_an_infinite_value_and_a_wrong_shape_are_damage(copied, tmp_path):
    shard = first_shard(copied)
    path = copied.path / shard.path
    records = [example_pb2.Example.FromString(record) for record in read_records(path)]
    statics = np.frombuffer(records[0].features.feature["statics"].bytes_list.value[0], "<f4").copy()
    statics[0] = np.inf
    records[0].features.feature["statics"].bytes_list.value[0] = statics.tobytes()
    records[2].features.feature["structured"].bytes_list.value[0] = b"1234"
    with open(path, "wb") as file:
        for record in records:
            write_record(file, record.SerializeToString())
    (folder := tmp_path / "sound").mkdir()
    _, lost = sound_part(copied, ("train",), folder)
    assert [problem.removeprefix(f"{path}: ") for problem in lost["train"]] == [
        "record 0 holds an infinite value in 'statics'.",
        "record 2 is no trajectory of this data set: 'structured': found 4 bytes, "
        f"expected {4 * np.prod(shape(copied))} bytes for shape {shape(copied)}.",
    ]


def shape(data):
    return data.spec.windows, len(data.spec.structured)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 4))
def test_whatever_bytes_are_flipped_only_sound_records_are_read(small_data, tmp_path_factory, seed, flips):
    folder = tmp_path_factory.mktemp("flipped")
    rng = np.random.default_rng(seed)
    shard = first_shard(small_data)
    original = (small_data.path / shard.path).read_bytes()
    damaged = bytearray(original)
    for place in rng.integers(len(damaged), size=flips):
        damaged[place] ^= 1 << rng.integers(8)
    (folder / shard.path).write_bytes(damaged)
    data = DataSet(small_data.path, small_data.manifest, replaced={shard.path: folder / shard.path})
    (copies := folder / "sound").mkdir()
    sound, lost = sound_part(data, ("train",), copies)
    truth = {item.name: item for item in read_trajectories(small_data, "train")}
    found = list(read_trajectories(sound, "train"))
    assert len(found) + len(lost["train"]) == small_data.count("train")
    for item in found:
        np.testing.assert_array_equal(item.signals, truth[item.name].signals)
        np.testing.assert_array_equal(item.structured, truth[item.name].structured)
