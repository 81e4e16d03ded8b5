"""A data set that is not on this disk: TensorFlow's `ram://` stands for gs:// and s3://."""

import itertools

import pytest
import tensorflow as tf

from tfmmcl.errors import InputError
from tfmmcl.files import RemotePath, location
from tfmmcl.pipeline.batches import Batches
from tfmmcl.records.cache import open_cached
from tfmmcl.records.labels import labelled
from tfmmcl.records.manifest import DataSet
from tfmmcl.records.verify import read_trajectories, verify

_numbers = itertools.count()


@pytest.fixture
def remote(small_data):
    """The URL of a copy of the data set."""
    url = f"ram://bucket-{next(_numbers)}/data"
    tf.io.gfile.makedirs(url)
    for file in small_data.path.iterdir():
        with tf.io.gfile.GFile(f"{url}/{file.name}", "wb") as copy:
            copy.write(file.read_bytes())
    return url


def write(url, data):
    with tf.io.gfile.GFile(url, "wb") as file:
        file.write(data)


def test_a_url_is_a_place_and_a_path_is_a_path(tmp_path):
    assert isinstance(location("gs://bucket/data/"), RemotePath)
    assert str(location("gs://bucket/data/") / "manifest.json") == "gs://bucket/data/manifest.json"
    assert location(str(tmp_path)) == tmp_path


def test_it_is_read_as_one_on_disk_is(remote, small_data):
    data = DataSet.open(remote)
    assert data.fingerprint == small_data.fingerprint
    assert verify(data) == []
    assert [item.name for item in read_trajectories(data, "train")] == [
        item.name for item in read_trajectories(small_data, "train")
    ]
    task = data.spec.tasks[0].name
    assert labelled(data, "train", task) == labelled(small_data, "train", task)


def test_its_batches_are_those_of_the_copy_on_disk(remote, make_settings, small_data):
    views = {}
    for path in (remote, str(small_data.path)):
        settings = make_settings(f"data.path='{path}'")
        views[path] = next(iter(Batches(DataSet.open(path), settings).training()))
    tf.nest.map_structure(lambda one, other: tf.debugging.assert_equal(one, other), *views.values())


def test_a_file_that_verify_does_not_know_is_named(remote):
    write(f"{remote}/stray.tfrecord", b"")
    assert verify(DataSet.open(remote)) == [f"{remote}/stray.tfrecord: not listed in the manifest."]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ram://nowhere/data", "ram://nowhere/data: no such data set folder"),
        ("xyz://bucket/data", "TensorFlow has no file system for xyz://; expected one of .*ram"),
    ],
)
def test_a_place_that_cannot_be_read_is_one_sentence(url, sentence):
    with pytest.raises(InputError, match=sentence):
        DataSet.open(url)


def test_the_cache_is_a_data_set_that_is_copied_once(remote, small_data, tmp_path):
    copy = open_cached(remote, tmp_path)
    assert copy.path == tmp_path / small_data.fingerprint
    assert verify(copy) == []
    shard = next(iter(copy.manifest.shards)).path
    times = {file.name: file.stat().st_mtime_ns for file in copy.path.iterdir()}
    (copy.path / shard).unlink()  # as if the copy had been interrupted
    again = open_cached(remote, tmp_path)
    assert verify(again) == []
    assert {file.name for file in again.path.iterdir() if file.stat().st_mtime_ns != times[file.name]} == {shard}


def test_what_was_damaged_on_the_way_is_not_kept(remote, tmp_path):
    shard = DataSet.open(remote).manifest.shards[0]
    write(f"{remote}/{shard.path}", bytes(shard.bytes))
    with pytest.raises(InputError, match=rf"{shard.path}: SHA-256 is [0-9a-f]+, expected {shard.sha256}"):
        open_cached(remote, tmp_path)
    assert not list(tmp_path.rglob(f"*{shard.path}*"))


def test_without_a_cache_nothing_is_copied(small_data, tmp_path):
    assert open_cached(small_data.path, None).path == small_data.path
