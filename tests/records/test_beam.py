"""The same data set from an Apache Beam pipeline, on its DirectRunner."""

import sys

import pytest
from small_cohorts import TinyCohort, make_settings

from tfmmcl.errors import InputError
from tfmmcl.records.beam import on_beam
from tfmmcl.records.writer import write_dataset


def write(cohort, out, options=""):
    return write_dataset(cohort, make_settings(), out, executor=on_beam("DirectRunner", options))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_without_apache_beam_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match=r"FlinkRunner: Apache Beam is not installed; pip install 'tfmmcl\[beam\]'\.$"):
        on_beam("FlinkRunner")


@pytest.fixture
def beam():
    return pytest.importorskip("apache_beam")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return files(write_dataset(TinyCohort(), make_settings(), tmp_path_factory.mktemp("here") / "data").path)


@pytest.mark.usefixtures("beam")
@pytest.mark.parametrize("options", ["", "--direct_num_workers 2 --direct_running_mode multi_threading"])
def test_it_makes_the_same_bytes(expected, tmp_path, options):
    assert files(write(TinyCohort(), tmp_path / "data", options).path) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.usefixtures("beam")
def test_it_continues_what_was_begun_elsewhere_and_the_other_way_round(expected, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        write_dataset(TinyCohort(at="patient7", fault="interrupt"), make_settings(), tmp_path / "data")
    with pytest.raises(InputError, match=r"^raw\.csv: line 3 is odd\.$"):
        write(TinyCohort(at="patient7", fault="bad data"), tmp_path / "data")
    assert files(write_dataset(TinyCohort(), make_settings(), tmp_path / "data").path) == expected
    assert capsys.readouterr().err.count("shards were made before") == 2


@pytest.mark.usefixtures("beam")
def test_it_advances_by_every_patient_once(tmp_path):
    from tfmmcl.records.partial import Partial
    from tfmmcl.records.shards import plan_shards

    partial, cohort, advanced = Partial(tmp_path / "data"), TinyCohort(), []
    with partial.locked():
        partial.begin(["key"])
        cohort.stage(partial.stage)
        plans = plan_shards(cohort, make_settings())
        on_beam("DirectRunner")(cohort, plans, partial.folder, advanced.append)
    assert sum(advanced) == 12


@pytest.mark.usefixtures("beam")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--direct_num_workers two", "--runner-options '--direct_num_workers two': argument --direct_num_workers: inv"),
        ("--temp_location 'open", '--runner-options "--temp_location \'open": No closing quotation'),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence):
    with pytest.raises(InputError) as error:
        on_beam("DirectRunner", options)
    assert str(error.value).startswith(sentence)
    assert len(str(error.value).splitlines()) == 1
