import datetime
import json
import os

import pytest

from aer_jax.corpora.tables import binary as binary_tables
from aer_jax.corpora.tables.read import delimiter_of, read_table
from aer_jax.errors import UserError

ROWS = [{"id": "a", "text": "Well, well."}, {"id": "b", "text": "ü\u2028|;"}]


def fields(path):
    return [row for _, row in read_table(path).rows]


def csv_text(delimiter):
    return "\r\n".join(delimiter.join([row["id"], f'"{row["text"]}"']) for row in [{"id": "id", "text": "text"}, *ROWS])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_delimited_text(tmp_path, delimiter, encoding):
    (tmp_path / "t.csv").write_bytes(csv_text(delimiter).encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("id", "text") and [row for _, row in table.rows] == ROWS
    assert table.rows[1][0] == f"{tmp_path / 't.csv'}, line 3"
    assert table.decimal_comma == (delimiter != ",")


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("id;audio;speaker", ";"),
        ("id\tlabel (happy, sad, angry)", "\t"),
        ('id;"votes, all, of, them"', ";"),
        ("id;audio;speaker;label (happy, sad, angry, neutral, fear)", ";"),
        ('"id";"audio";"the class, by vote"', ";"),
        ("a|b|c", "|"),
        ("id", ","),
        ("", ","),
        ("id,votes;", ","),
    ],
)
def test_delimiter(header, delimiter):
    assert delimiter_of(header) == delimiter


def test_the_delimiter_that_excel_names(tmp_path):
    (tmp_path / "t.csv").write_text("sep=|\r\nid|text,with;others\r\na|b\r\n")
    assert read_table(tmp_path / "t.csv").rows == [
        (f"{tmp_path / 't.csv'}, line 3", {"id": "a", "text,with;others": "b"})
    ]


def test_cells_of_several_lines(tmp_path):
    (tmp_path / "t.csv").write_text('id,text\na,"Well,\nwell."\nb,"He said ""no"",\n\nand left, well"\n')
    assert [row["text"] for row in fields(tmp_path / "t.csv")] == ["Well,\nwell.", 'He said "no",\n\nand left, well']


def test_trailing_delimiters_and_index_columns(tmp_path):
    (tmp_path / "t.csv").write_text(",id,text,,\n0,a,,,\n1,b,x,,\n")
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ("(column 1, without a name)", "id", "text")
    assert fields(tmp_path / "t.csv")[1] == {"(column 1, without a name)": "1", "id": "b", "text": "x"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv"])
@pytest.mark.parametrize("array", [True, False])
def test_json(tmp_path, suffix, array):
    path = tmp_path / f"t{suffix}"
    lines = [json.dumps(row | {"none": None, "nan": float("nan")}, ensure_ascii=False) for row in ROWS]
    text = "\n[" + ",\n".join(lines) + "]" if array else "\n".join(lines) + "\n\n"
    path.write_text(text, encoding="utf-8")
    assert fields(path) == ROWS


def workbook(path, *sheets):
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for i, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {i}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_workbook(tmp_path):
    rows = [[], ["id", "start", "n"], ["a", datetime.time(0, 1, 30, 500_000), 3.0], [None], ["#N/A", None, 0.5]]
    path = workbook(tmp_path / "t.xlsx", [], rows)
    assert read_table(path).columns == ("id", "start", "n")
    assert read_table(path).rows == [
        (f"{path}, row 3", {"id": "a", "start": datetime.timedelta(seconds=90.5), "n": 3}),
        (f"{path}, row 5", {"id": "#N/A", "n": 0.5}),
    ]
    path.rename(tmp_path / "t.csv")
    assert len(fields(tmp_path / "t.csv")) == 2  # whatever it is called


def test_workbooks_that_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"several sheets with content \(sheet 0, sheet 1\)"):
        read_table(workbook(tmp_path / "t.xlsx", [["id"]], [["id"]]))
    with pytest.raises(UserError, match=r"row 2 holds the formula =1\+1 without its value"):
        read_table(workbook(tmp_path / "t.xlsx", [["id"], ["=1+1"]]))
    with pytest.raises(UserError, match='column "id" stands there twice'):
        read_table(workbook(tmp_path / "t.xlsx", [["id", "id "], ["a", "b"]]))
    for content in (b"", b"PK\x03\x04", b"\xd0\xcf\x11\xe0 old", (tmp_path / "t.xlsx").read_bytes()[:-100]):
        (tmp_path / "bad.xlsx").write_bytes(content)
        with pytest.raises(UserError, match=r"bad.xlsx is not an Excel workbook"):
            read_table(tmp_path / "bad.xlsx")


def test_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "t.parquet"
    votes = [["happy", "sad"], []]
    frame = pandas.DataFrame({"id": ["a", "b"], "start": pandas.to_timedelta([1.5, None], "s"), "votes": votes})
    frame.assign(n=[1.0, float("nan")]).to_parquet(path)
    assert fields(path) == [
        {"id": "a", "start": datetime.timedelta(seconds=1.5), "votes": ["happy", "sad"], "n": 1.0},
        {"id": "b", "votes": []},
    ]
    assert read_table(path).rows[1][0] == f"{path}, row 2"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a Parquet file that can be read"):
        read_table(path)


@pytest.mark.parametrize(
    ("package", "read"), [("pyarrow", binary_tables.read_parquet), ("openpyxl", binary_tables.read_workbook)]
)
def test_a_table_without_its_package(tmp_path, monkeypatch, package, read):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}: `pip install 'aer-jax\[tables\]'"):
        read(b"PAR1", tmp_path / "table")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xls", b"", r"is none of .csv.*save it as .xlsx or .csv"),
        ("t.pdf", b"", r"is none of .csv.*rename or convert it"),
        ("t.csv", "id\nmüde".encode("latin-1"), r"line 2 is not UTF-8 text; save the file as UTF-8"),
        ("t.csv", "id\nx".encode("utf-16-le"), r"line 1 holds a NUL byte"),
        ("t.csv", "id\nx".encode("utf-16")[:-1], r"is not UTF-16 text"),
        ("t.csv", b'id\n"a', r"line 2 is not CSV"),
        ("t.csv", b"a" * 200_000, r"line 1 is not CSV"),
        ("t.csv", b"id,x\n" + b"a" * 200_000 + b",b", r"line 2 is not CSV \(field larger"),
        ("t.json", b'{\n"id": "a"\n}', r"t.json is one JSON object; write one object per line"),
        ("t.json", b'{"id": {"0": "a"}}', r"t.json is one JSON object"),
        ("t.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("t.json", b"[1, ", r"t.json is not valid JSON"),
        ("t.json", b"[" * 100_000, r"t.json is not valid JSON"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "id,x\na,b\nc\n", "line 3 has 1 cells, the header has 2"),
        ("t.csv", "id,x\na,b\nc,d,e\n", "line 3 has 3 cells, the header has 2; quote cells that hold commas"),
        ("t.csv", "id;x\na;b\nc;d;e\n", "line 3 has 3 cells, the header has 2; quote cells that hold semicolons"),
        ("t.tsv", 'id\tx\ty\na\tb\tc\nd\t"e\tf\ng\th"\ti\n', "line 4: a quoted cell holds what look like rows"),
        ("t.tsv", 'id\tx\na\tb\nc\t"d\ne\tf\ng\th"\n', "line 5: a quoted cell holds what look like rows"),
        ("t.csv", 'id,x,y,z\na,b,c,d\ne,f,g,"h\ni,j,k,l"\n', "line 4: a quoted cell holds what look like rows"),
        ("t.json", '[{"id": "a"}, 3]', "item 2 is not a JSON object"),
        ("t.jsonl", '{"id": "a"}\n[3]', "line 2 is not a JSON object"),
        ("t.jsonl", '{"id": "a"}\n' + '{"a":' * 100_000, "line 2 is not valid JSON"),
        ("t.jsonl", '{"id": "a"}\n{"id": 1, "id": 2}', 'line 2 is not valid JSON ("id" stands twice'),
        ("t.jsonl", '{"id": "a"}\n{"id": ' + "9" * 5000 + "}", "line 2 is not valid JSON"),
    ],
)
def test_rows_that_cannot_be_read_are_errors_in_their_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    first, second = fields(tmp_path / name)
    assert first["id"] == "a"
    assert isinstance(second, UserError) and f"{name}, {message}" in str(second)


def test_a_missing_table(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path, tmp_path / "pipe.csv"):
        with pytest.raises(UserError, match="is a folder, pipe or device"):
            read_table(path)
    with pytest.raises(UserError, match=r"cannot read .*no.csv: No such file"):
        read_table(tmp_path / "no.csv")
