import gzip
import re
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfmmcl.cohorts.tables import FILE, Table, files, reading, require, scan, unpack
from tfmmcl.errors import InputError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def rows(root, path, **settings):
    table = Table(path=path, **settings)
    with reading(root, table):
        return scan(root, table).collect(engine="streaming")


def test_files_are_those_a_glob_matches_in_order(tmp_path):
    for name in ("b/2.csv", "b/1.csv", "a.csv", "a.txt", "b/._1.csv"):
        write(tmp_path / name, "x\n")
    (tmp_path / "folder.csv").mkdir()
    assert files(tmp_path, "**/*.csv") == [tmp_path / name for name in ("a.csv", "b/1.csv", "b/2.csv")]


@pytest.mark.parametrize("pattern", ["*.tsv", "/etc/*", "**.csv"])
def test_a_glob_without_files_is_one_sentence(tmp_path, pattern):
    with pytest.raises(InputError, match=re.escape(pattern)):
        files(tmp_path, pattern)


def test_csv_is_text_with_clean_names_whatever_the_columns_order(tmp_path):
    write(tmp_path / "s/1.csv", " a, b\n007,x y\n1.50,\n")
    write(tmp_path / "s/2.csv.gz", "b,a \n,3\n")
    write(tmp_path / "s/3.csv", b'\xef\xbb\xbfa,b\r\n4,"q,"\r\n')
    found = rows(tmp_path, "s/*")
    expected = {("007", "x y", "s/1.csv"), ("1.50", None, "s/1.csv"), ("3", None, "s/2.csv.gz"), ("4", "q,", "s/3.csv")}
    assert set(found.select("a", "b", FILE).rows()) == expected


def test_columns_can_be_named_and_separated_otherwise(tmp_path):
    write(tmp_path / "1.txt", "1|2\n3|4\n")
    assert rows(tmp_path, "1.txt", columns=("a", "b"), separator="|").drop(FILE).rows() == [("1", "2"), ("3", "4")]
    with pytest.raises(InputError, match=r"1\.txt: found 2 columns, expected 3 \(a, b, c\)\.$"):
        rows(tmp_path, "1.txt", columns=("a", "b", "c"), separator="|")


def test_parquet_keeps_its_types_and_mixes_with_csv(tmp_path):
    pl.DataFrame({"a": [1, 2], "b": [0.5, None]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"b": [1.5], "a": [3]}, schema_overrides={"a": pl.Int32}).write_parquet(tmp_path / "2.parquet")
    found = rows(tmp_path, "*.parquet").sort("a")
    assert found.schema["a"] == pl.Int64
    assert found.select("a", "b", FILE).rows() == [(1, 0.5, "1.parquet"), (2, None, "1.parquet"), (3, 1.5, "2.parquet")]
    write(tmp_path / "3.csv", "a,b\nx,1\n")
    assert set(rows(tmp_path, "*")["a"]) == {"1", "2", "3", "x"}


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_compressed_files_are_read(tmp_path, compression):
    frame = pl.DataFrame({"a": ["1", "2"], "b": ["x", "y"]})
    path = tmp_path / f"1.csv.{compression}"
    frame.lazy().sink_csv(path, compression={"gz": "gzip", "zst": "zstd"}[compression])
    assert rows(tmp_path, path.name).drop(FILE).equals(frame)


def test_a_gzip_of_several_members_is_read_whole(tmp_path):
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"))
    assert rows(tmp_path, "1.csv.gz")["a"].to_list() == ["1", "2"]


def test_a_root_whose_name_looks_like_a_glob_is_no_glob(tmp_path):
    write(tmp_path / "[x]*/1.csv", "a\n1\n")
    assert rows(tmp_path / "[x]*", "1.csv").rows() == [("1", "1.csv")]


text = st.text("abcö0129 .,;-+\"'\n", max_size=6)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.lists(st.tuples(text, text), min_size=1, max_size=8), cut=st.integers(0, 8))
def test_csv_reads_as_pandas_reads_it(tmp_path, table, cut):
    for path in tmp_path.iterdir():
        path.unlink()
    frame = pd.DataFrame(table, columns=["one", "two"])
    frame[:cut].to_csv(tmp_path / "1.csv", index=False, quoting=1)
    frame[cut:][["two", "one"]].to_csv(tmp_path / "2.csv.gz", index=False, quoting=1)
    read = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(tmp_path.iterdir())]
    expected = sorted(pd.concat(read)[["one", "two"]].itertuples(index=False, name=None))
    found = rows(tmp_path, "*").select(pl.col("one", "two").fill_null(""))
    assert sorted(found.rows()) == expected


def test_a_missing_column_is_one_sentence(tmp_path):
    write(tmp_path / "set/1.csv", "Time,Parameter,Value\n")
    table = Table(path="set/*.csv")
    frame = scan(tmp_path, table)
    require(frame, table, ("Time", "Value"))
    expected = "set/*.csv: no column 'Valu', found Time, Parameter, Value; did you mean 'Value'?."
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        require(frame, table, ("Time", "Valu"))


def truncated_gzip(path):
    content = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(100_000)))
    path.write_bytes(content[: len(content) // 2])


DAMAGE = {
    "half.csv.gz": truncated_gzip,
    "empty.csv": lambda path: path.write_bytes(b""),
    "ragged.csv": lambda path: path.write_text("a,b\n1,2\n1,2,3\n"),
    "latin.csv": lambda path: path.write_bytes("a,b\n1,Größe\n".encode("latin-1")),
    "quote.csv": lambda path: path.write_text('a,b\n"1,2\n3,4\n'),
    "twice.csv": lambda path: path.write_text("a, a\n1,2\n"),
    "no.parquet": lambda path: path.write_text("a,b\n1,2\n"),
    "empty.parquet": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, name):
    for good in range(3):
        write(tmp_path / f"a{good}.csv", "a,b\n1,2\n")
        pl.DataFrame({"a": ["1"], "b": ["2"]}).write_parquet(tmp_path / f"a{good}.parquet")
    DAMAGE[name](tmp_path / name)
    with pytest.raises(InputError) as raised:
        rows(tmp_path, "*")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert message.endswith(".")
    assert "\n" not in message
    assert "Größe" not in message


def test_a_full_disk_is_not_blamed_on_a_file(tmp_path):
    write(tmp_path / "1.csv", "a\n1\n")
    with pytest.raises(OSError, match="full") as raised, reading(tmp_path, Table(path="1.csv")):
        raise OSError(28, "full")
    assert not isinstance(raised.value, InputError)


@pytest.fixture(params=["tar", "gztar", "zip"])
def archive(request, tmp_path):
    write(tmp_path / "data/set/1.txt", "a\n1\n")
    return Path(shutil.make_archive(str(tmp_path / "archive"), request.param, tmp_path / "data"))


def test_an_archive_is_unpacked_once(archive, tmp_path):
    folder = tmp_path / "staging" / "unpacked"
    assert unpack(archive, folder) == folder
    assert [path.name for path in files(folder, "**/*.txt")] == ["1.txt"]
    (folder / "set/1.txt").write_text("touched")
    assert (unpack(archive, folder) / "set/1.txt").read_text() == "touched"
    archive.touch()
    assert (unpack(archive, folder) / "set/1.txt").read_text() == "a\n1\n"


def test_a_folder_is_itself_and_anything_else_is_one_sentence(tmp_path, archive):
    folder = tmp_path / "unpacked"
    assert unpack(tmp_path, folder) == tmp_path
    (tmp_path / "data.csv").write_text("a\n")
    with pytest.raises(InputError, match=r"expected a folder or an archive"):
        unpack(tmp_path / "data.csv", folder)
    with pytest.raises(InputError, match="no such file or folder"):
        unpack(tmp_path / "absent.zip", folder)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(archive, folder)
    assert not folder.exists()


@pytest.mark.parametrize(("field", "value", "says"), [(6, 1, "encrypted"), (8, 99, "not supported")])
def test_an_archive_that_python_cannot_unpack_is_one_sentence(tmp_path, field, value, says):
    write(tmp_path / "data/1.txt", "a\n1\n")
    path = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "data", "1.txt"))
    content = bytearray(path.read_bytes())
    for header in (content.index(b"PK\3\4"), content.index(b"PK\1\2") + 2):  # in the file and in the directory
        content[header + field] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"cannot be unpacked .*{says}"):
        unpack(path, tmp_path / "unpacked")


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    write(tmp_path / "1.txt", "x")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "1.txt", "../../escaped.txt")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "evil.tar", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escaped.txt"))
