"""Ids leave only as keyed hashes."""

import hashlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmmcl.cohorts.identity import ENVIRONMENT, keyed_hash, load_key
from tfmmcl.errors import InputError

KEY = "0123456789abcdef"


@given(st.binary(min_size=1, max_size=200), st.text())
def test_the_hash_is_hmac_sha256_by_its_definition(key, patient):
    block = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + patient.encode("utf-8", "surrogatepass")).digest()
    expected = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).hexdigest()[:32]
    assert keyed_hash(key, patient) == expected


@given(st.lists(st.text(), unique=True, min_size=2, max_size=50), st.binary(min_size=16, max_size=64))
def test_different_patients_and_different_keys_have_different_hashes(patients, key):
    hashes = [keyed_hash(key, patient) for patient in patients]
    assert len(set(hashes)) == len(patients)
    assert not set(hashes) & {keyed_hash(key + b"x", patient) for patient in patients}


def test_the_key_comes_from_a_file_then_the_environment_then_the_users_own(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text(f" {KEY}1 \n")
    monkeypatch.setenv(ENVIRONMENT, KEY + "2")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_key(file) == ((KEY + "1").encode(), str(file))
    assert load_key() == ((KEY + "2").encode(), f"the environment variable {ENVIRONMENT}")
    monkeypatch.delenv(ENVIRONMENT)
    own, where = load_key()
    assert where == str(tmp_path / "config" / "tfmmcl" / "id.key")
    assert len(own) == 64
    assert load_key() == (own, where)
    assert stat.S_IMODE((tmp_path / "config" / "tfmmcl" / "id.key").stat().st_mode) == 0o600


def test_a_short_key_and_a_missing_file_are_refused(tmp_path, monkeypatch):
    (tmp_path / "short").write_text("secret")
    with pytest.raises(InputError, match=r"short: found a key of 6 characters, expected at least 16\."):
        load_key(tmp_path / "short")
    with pytest.raises(InputError, match=r"absent: No such file or directory; expected the key"):
        load_key(tmp_path / "absent")
    monkeypatch.setenv(ENVIRONMENT, "short")
    with pytest.raises(InputError, match=f"environment variable {ENVIRONMENT}: found a key of 5"):
        load_key()
