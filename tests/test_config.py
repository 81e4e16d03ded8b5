import subprocess
import sys
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from tfmmcl.cohorts.synthetic.cohort import SyntheticSettings
from tfmmcl.config import Settings, dump, load, read_yaml, validate
from tfmmcl.errors import InputError
from tfmmcl.settings import PretrainSettings


class Inner(Settings):
    rate: float = Field(default=1e-3, gt=0)
    units: tuple[int, ...] = (8, 8)


class Outer(Settings):
    name: str
    seed: int = Field(default=0, ge=0)
    mode: Literal["fast", "slow"] = "fast"
    ready: bool = False
    inner: Inner = Inner()
    maybe: Inner | None = Inner()


TEXT = st.text(st.characters(exclude_categories=()))
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
INNER = st.builds(Inner, rate=POSITIVE, units=st.lists(st.integers()).map(tuple))
OUTER = st.builds(
    Outer,
    name=TEXT | st.sampled_from(["1e5", "1_0E+3", "-.5e3", "no", "null", "2020-01-01", "0x_", "~", "<<", "=", "a: b"]),
    seed=st.integers(0),
    mode=st.sampled_from(["fast", "slow"]),
    ready=st.booleans(),
    inner=INNER,
    maybe=st.none() | INNER,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "settings.yaml"


@pytest.fixture
def loaded(path):
    def load_text(text, *overrides, schema=Outer):
        path.write_text(text, encoding="utf-8")
        return load(path, schema, overrides)

    return load_text


@pytest.fixture
def refused(loaded, path):
    """Loads text that is wrong, and returns the sentence after the file's name."""

    def sentence(text, *overrides, schema=Outer):
        with pytest.raises(InputError) as error:
            loaded(text, *overrides, schema=schema)
        message = str(error.value)
        assert message.isprintable()
        assert message.startswith((f"{path}: ", "override "))
        return message.removeprefix(f"{path}: ")

    return sentence


def test_values_get_their_types_and_defaults_fill_the_rest(loaded):
    found = loaded("name: a\nseed: 3\ninner: {units: [1, 2]}\nready: yes")
    assert found == Outer(name="a", seed=3, inner=Inner(rate=1e-3, units=(1, 2)), ready=True)


def test_settings_are_immutable(loaded):
    with pytest.raises(ValueError, match="frozen"):
        loaded("name: a").seed = 1


@pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("3E4", 3e4), ("+1.5e+2", 150), (".5e1", 5), ("7", 7)])
def test_exponents_are_numbers_with_or_without_a_dot_or_sign(loaded, text, number):
    assert loaded(f"name: a\ninner: {{rate: {text}}}").inner.rate == number
    assert loaded("name: a", f"inner.rate={text}").inner.rate == number


@pytest.mark.parametrize("text", ["'1e5'", "1e", "e5", "1e5a", "1.2.3e4"])
def test_what_only_looks_like_a_number_stays_text(loaded, text):
    assert loaded(f"name: {text}").name == text.strip("'")


def test_overrides_replace_open_and_close_sections(loaded):
    text = "name: a\nseed: 1\ninner: {rate: 2}"
    found = loaded(text, "seed=5", "inner.units=[3]", "maybe=null", "mode=slow", "ready=true", "name=x=y")
    assert found == Outer(name="x=y", seed=5, inner=Inner(rate=2, units=(3,)), maybe=None, mode="slow", ready=True)
    assert loaded("name: a\nmaybe: null", "maybe.rate=2").maybe == Inner(rate=2)
    assert loaded("name: a", "seed=1", "seed=2").seed == 2


def test_anchors_and_merge_keys_work(loaded):
    assert loaded("name: a\ninner: &i {rate: 2, units: [1]}\nmaybe: {<<: *i, rate: 3}").maybe == Inner(
        rate=3, units=(1,)
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\nsede: 1", "unknown key 'sede'; did you mean 'seed'?"),
        ("nmae: a", "unknown key 'nmae'; did you mean 'name'?"),
        ("name: a\ninner: {rat: 1}", "unknown key 'inner.rat'; did you mean 'rate'?"),
        ("name: a\nmaybe: {unit: [1]}", "unknown key 'maybe.unit'; did you mean 'units'?"),
        ("name: a\ninner: {zzz: 1}", "unknown key 'inner.zzz'; expected one of: rate, units."),
        ('name: a\n"x\\ny": 1', "unknown key 'x\\ny'; expected one of: name, seed, mode, ready, inner, maybe."),
        ("seed: 1", "key 'name' is missing."),
    ],
)
def test_a_key_that_is_unknown_or_missing_is_named_with_the_nearest_known_one(refused, text, sentence):
    assert refused(text) == sentence


def test_unknown_keys_of_real_settings_are_found_however_deep(refused):
    text = "data: {path: d}\naugmentation: {signal_mask: {fracton: 0.5}}"
    sentence = "unknown key 'augmentation.signal_mask.fracton'; did you mean 'fraction'?"
    assert refused(text, schema=PretrainSettings) == sentence


@pytest.mark.parametrize(
    ("text", "key", "found", "expected"),
    [
        ("name: a\nseed: one", "seed", "'one'", "valid integer"),
        ("name: a\nseed: 1.5", "seed", "1.5", "valid integer"),
        ("name: a\nseed: -1", "seed", "-1", "greater than or equal to 0"),
        ("name: a\nseed: null", "seed", "None", "valid integer"),
        ("name: 3", "name", "3", "valid string"),
        ("name: a\nmode: quick", "mode", "'quick'", "'fast' or 'slow'"),
        ("name: a\nready: 3", "ready", "3", "valid boolean"),
        ("name: a\ninner: {rate: 0}", "inner.rate", "0", "greater than 0"),
        ("name: a\ninner: {rate: .inf}", "inner.rate", "inf", "finite number"),
        ("name: a\ninner: {rate: .nan}", "inner.rate", "nan", "finite number"),
        ("name: a\ninner: {units: [1, x]}", "inner.units.1", "'x'", "valid integer"),
        ("name: a\ninner: {units: 3}", "inner.units", "3", "valid tuple"),
        ("name: a\ninner: 3", "inner", "3", "expected a section"),
        ("name: a\n3: b", "3", "3", "keys should be strings"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_key_found_and_expected(refused, text, key, found, expected):
    sentence = refused(text)
    assert sentence.startswith(f"key '{key}': found {found}, ")
    assert expected in sentence
    assert sentence.endswith(".")


def test_settings_that_do_not_fit_each_other_are_one_sentence(refused):
    text = "data: {path: d}\ntraining: {epochs: 1}\noptimizer: {warmup_epochs: 2}"
    assert refused(text, schema=PretrainSettings) == (
        "optimizer.warmup_epochs is 2.0, more than the 1 epochs of training.epochs."
    )


def test_a_value_that_unfolds_without_end_is_shown_shortened(refused):
    bomb = "a: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40))
    assert len(refused(bomb + "name: *a40")) < 1000
    assert len(refused("name: &n [*n]")) < 1000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [a", "not valid YAML at line 1: "),
        ("name: a\n\tseed: 1", "not valid YAML at line 2: "),
        ("name: a\nseed: 1\nname: b", "not valid YAML at line 3: key 'name' appears twice."),
        ("name: a\ninner:\n  rate: 1\n  rate: 1", "not valid YAML at line 4: key 'rate' appears twice."),
        ("name: a\0", "not valid YAML: "),
        ("? [a]\n: b", "not valid YAML: "),
        ("name: 2020-13-01", "not valid YAML: it cannot be parsed (month must be in 1..12)."),
        ("name: !!bool maybe", "not valid YAML: "),
        ("name: !!timestamp x", "not valid YAML: "),
        ("seed: " + "9" * 5000, "not valid YAML: "),
        ("!!map [a]", "not valid YAML: "),
        ("[" * 5000, "not valid YAML: "),
        ("", "found NoneType, expected a YAML mapping of settings."),
        ("- a", "found list, expected a YAML mapping of settings."),
        ("just text", "found str, expected a YAML mapping of settings."),
    ],
)
def test_what_is_not_a_yaml_mapping_is_one_sentence(refused, text, sentence):
    assert refused(text).startswith(sentence)


@pytest.mark.parametrize("tag", ["object/apply:os.system", "name:os.system", "object/new:os.system", "module:os"])
def test_no_tag_makes_a_python_object(refused, tmp_path, tag):
    victim = tmp_path / "victim"
    assert "could not determine a constructor" in refused(f"name: !!python/{tag} ['touch {victim}']")
    assert "is not a YAML value" in refused("name: a", f"name=!!python/{tag} ['touch {victim}']")
    assert not victim.exists()


@pytest.mark.parametrize("text", ["seed", "=1", ".seed=1", "seed.=1", "inner..rate=1", ""])
def test_an_override_without_key_and_value_is_one_sentence(refused, text):
    assert refused("name: a", text) == f"override {text!r}: expected key=value, such as optimizer.learning_rate=3e-4."


def test_an_override_into_a_single_value_is_one_sentence(refused):
    assert (
        refused("name: a", "name.first=b") == "override 'name.first=b': 'name' is a single value ('a'), not a section."
    )


@pytest.mark.parametrize("text", ["seed=[", "seed=2020-13-01", "seed={a: b: c}", "seed=\0"])
def test_an_override_that_is_not_yaml_is_one_sentence(refused, text):
    assert refused("name: a", text).endswith("is not a YAML value.")


def test_an_override_is_validated_like_the_file(refused):
    for override, sentence in {
        "inner.rat=1": "unknown key 'inner.rat'; did you mean 'rate'?",
        "inner.rate=-1": "key 'inner.rate': found -1, input should be greater than 0.",
        "inner={rate: -1}": "key 'inner.rate': found -1, input should be greater than 0.",
    }.items():
        assert refused("name: a", override) == f"override {override!r}: {sentence}"
    # The file's own mistake stays the file's, whatever else is overridden.
    assert refused("name: a\nseed: x", "inner.rate=2").startswith("key 'seed': found 'x'")


def test_a_missing_file_a_folder_and_a_binary_file_are_one_sentence(path, tmp_path):
    with pytest.raises(InputError, match=r"settings.yaml: no such file; expected a YAML settings file\.$"):
        read_yaml(path)
    with pytest.raises(InputError, match=r"cannot be read \(.*directory.*\); expected a YAML settings file\.$"):
        read_yaml(tmp_path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(InputError, match=r"settings.yaml: cannot be read \(.*\); expected a YAML settings file\.$"):
        read_yaml(path)


@given(OUTER)
def test_what_is_dumped_loads_to_an_equal_object(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(settings), encoding="utf-8")
    assert load(path, Outer) == settings


def test_dumped_settings_spell_out_every_default(path):
    settings = PretrainSettings(data={"path": "d"})
    path.write_text(dump(settings))
    assert read_yaml(path) == settings.model_dump(mode="json")
    assert load(path, PretrainSettings) == settings


def test_synthetic_settings_survive_dumping(path):
    settings = SyntheticSettings(name="1e3", leads=("V1", "aVR"), split={"seed": 5, "test": 1e-7})
    path.write_text(dump(settings))
    assert load(path, SyntheticSettings) == settings


YAMLISH = st.text(st.sampled_from("abe:-[]{}&*!#|>'\"%@`,?~=<.+0123456789xo_ \t\n"), max_size=40)
KEYED = st.builds("name: {}\n{}: {}".format, YAMLISH, st.sampled_from(["seed", "inner", "mode", "x", "maybe"]), YAMLISH)


def only_input_errors(act):
    try:
        outcome = act()
    except InputError as error:
        outcome = str(error)
    assert isinstance(outcome, Outer) or len(outcome.splitlines()) == 1


@settings(max_examples=300)
@given(TEXT | YAMLISH | KEYED)
@example("a: 2020-99-99")
@example("? {a: b}\n: c")
@example("a: !!str {=: b}")
def test_arbitrary_text_is_settings_or_one_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    only_input_errors(lambda: load(path, Outer))


@given(st.binary())
def test_arbitrary_bytes_are_settings_or_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "binary.yaml"
    path.write_bytes(data)
    only_input_errors(lambda: load(path, Outer))


@settings(max_examples=300)
@given(
    TEXT | st.builds("{}={}".format, st.sampled_from(["name", "seed", "inner.rate", "maybe", "x.y"]), TEXT | YAMLISH)
)
@example("name\n=1")
@example("name.\u2028=1")
def test_an_arbitrary_override_is_settings_or_one_sentence(tmp_path_factory, override):
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    path.write_text("name: a")
    only_input_errors(lambda: load(path, Outer, [override]))


def test_validate_names_the_source_it_is_given():
    with pytest.raises(InputError, match=r"^somewhere: key 'name' is missing\.$"):
        validate({}, Outer, "somewhere")


@pytest.mark.parametrize(
    "modules",
    [
        "tfmmcl.config, tfmmcl.settings, tfmmcl.errors, tfmmcl.command",
        "tfmmcl.cohorts.catalog, tfmmcl.cohorts.splits",
        "tfmmcl.records.writer, tfmmcl.records.verify, tfmmcl.records.summary",
    ],
)
def test_importing_does_not_import_tensorflow_or_keras(modules):
    script = f"import sys, {modules}; print({{'tensorflow', 'keras'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
