"""CSV and TSV: each row is an entry, columns are found by the header or the user's mapping, faults have a line."""

import csv
import gzip
import io
import itertools
import tracemalloc

import pyarrow as pa
import pytest

from ctxner.retrieval.corpus import tables
from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

HEADER = ["id", "name", "description", "type", "aliases", "source"]
ROWS = [
    ["p1", "Velmora 3", 'A lamp, "the third".\nIt is blue.', "product", "Velmora Three | V3", "shop"],
    ["p2", "Größe", "", "", "", ""],
    ["", "", 'A text without a name; 5" wide', "", "", ""],
]


def write(path, text, encoding="utf-8"):
    content = text.encode(encoding)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def table(rows, *, delimiter=",", end="\r\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".TSV"])
def test_rows_are_entries_with_quotes_and_line_breaks_within_fields(tmp_path, suffix, end, encoding):
    delimiter = "\t" if "tsv" in suffix.lower() else ","
    path = write(tmp_path / f"shop{suffix}", table([HEADER, *ROWS], delimiter=delimiter, end=end), encoding)
    assert list(read_corpus([path])) == [
        Passage(
            "p1",
            "shop",
            'A lamp, "the third".\nIt is blue.',
            "Velmora 3",
            aliases=("Velmora Three", "V3"),
            type="product",
        ),
        Passage("p2", "shop", "", "Größe"),
        Passage("shop-5", "shop", 'A text without a name; 5" wide'),  # the lamp takes lines 2 and 3
    ]


@pytest.mark.parametrize(
    ("content", "passages"),
    [
        ("title,text\nA,one\n", [Passage("c-2", "c", "one", "A")]),
        ("contents\none\n", [Passage("c-2", "c", "one")]),
        (" Name , TYPE,other\nA,city,x\n", [Passage("c-2", "c", "", "A", type="city")]),
        ("title,name\nB,A\n", [Passage("c-2", "c", "", "A")]),
        ("\n\nname\n\nA\n , \n\nB\n".replace(" , ", " "), [Passage("c-5", "c", "", "A"), Passage("c-8", "c", "", "B")]),
        ("name,type,aliases\nA\nB,city\n", [Passage("c-2", "c", "", "A"), Passage("c-3", "c", "", "B", type="city")]),
        ('name, text\nA, "x, y"\n', [Passage("c-2", "c", "x, y", "A")]),
        ("name,x,x\nA,1,2\n", [Passage("c-2", "c", "", "A")]),
    ],
    ids=["title-text", "text-only", "case-blanks", "name-before-title", "blank", "short", "blank-quote", "ignored"],
)
def test_the_header_names_the_columns(tmp_path, content, passages):
    assert list(read_corpus([write(tmp_path / "c.csv", content)])) == passages


@pytest.mark.parametrize(
    ("columns", "passage"),
    [
        (
            {"name": "Produktname", "aliases": "Synonyme"},
            Passage("c-2", "c", "Lampe", "Velmora", aliases=("V", "V3")),
        ),
        ({"title": "Synonyme"}, Passage("c-2", "c", "Lampe", "V|V3")),
        ({"text": "Produktname"}, Passage("c-2", "c", "Velmora")),
        ({"name": "text"}, Passage("c-2", "c", "", "Lampe")),
    ],
)
def test_the_user_says_which_column_is_which_field(tmp_path, columns, passage):
    path = write(tmp_path / "c.csv", "Produktname,Synonyme,text\nVelmora,V|V3,Lampe\n")
    assert list(read_corpus([path], columns=columns)) == [passage]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (
            {"nmae": "x"},
            "columns: unknown field 'nmae' (for column 'x'); valid: name, title, term, description, text, "
            "contents, definition, type, category, aliases, synonyms, id, source",
        ),
        ({"name": "a", "title": "b"}, "columns: name and title and term are one field"),
        ({"text": "a", "contents": "b"}, "columns: description and text and contents and definition are one field"),
    ],
)
def test_a_mapping_of_unknown_fields_lists_the_valid_ones(tmp_path, columns, wanted):
    with pytest.raises(ValueError, match="columns: ") as error:
        CorpusReader([write(tmp_path / "c.csv", "a\nb\n")], columns=columns)
    assert wanted in str(error.value)


ENTRY = Passage("g-2", "g", "a town; by the sea", "Velmora")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.csv", 'Term;Definition\nVelmora;"a town; by the sea"\n'),
        ("g.csv", '\ufeffterm;definition;\r\nVelmora;"a town; by the sea";\r\n'),  # as Excel saves it
        ("g.csv", "Term\tDefinition\nVelmora\ta town; by the sea\n"),
        ("g.tsv", "Term,Definition\nVelmora,a town; by the sea\n"),
        ("g.txt", "Term\tDefinition\nVelmora\ta town; by the sea\n"),
        ("g.txt", "Term,Definition\nVelmora,a town; by the sea\n"),
        ("g.txt", 'Term;Definition\r\nVelmora;"a town; by the sea"\r\n'),
        ("g.txt.gz", "\n\ufeffName\tDescription\nVelmora\ta town; by the sea\n".replace("\n\ufeff", "\ufeff")),
    ],
)
def test_the_header_tells_the_separator_and_a_text_with_a_header_is_a_table(tmp_path, name, content):
    assert list(read_corpus([write(tmp_path / name, content)])) == [ENTRY]


@pytest.mark.parametrize(("name", "mark"), [("g.csv", ","), ("g.csv", ";"), ("g.tsv", "\t")])
def test_columns_of_a_table_without_a_header_are_numbered(tmp_path, name, mark):
    path = write(tmp_path / name, f"Velmora{mark}town\nHator{mark}chair\n")
    wanted = [Passage("g-1", "g", "town", "Velmora"), Passage("g-2", "g", "chair", "Hator")]
    assert list(read_corpus([path], columns={"name": "1", "description": "2"})) == wanted
    with pytest.raises(ValueError, match=r"g\..sv:1: .*if that row is no header, by numbers: --columns name=1"):
        list(read_corpus([path]))
    with pytest.raises(ValueError, match=r"g\..sv:1: no column 3 for 'name'; .* the row has 2 fields"):
        list(read_corpus([path], columns={"name": "3"}))


def test_a_column_whose_name_is_a_number_is_still_found_by_it(tmp_path):
    path = write(tmp_path / "g.csv", "x,1\na,Velmora\n")
    assert list(read_corpus([path], columns={"name": "1"})) == [Passage("g-2", "g", "", "Velmora")]


def test_a_text_of_terms_and_tabs_without_a_header_is_told(tmp_path, caplog):
    path = write(tmp_path / "g.txt", "Velmora\ta town\nHator\ta chair\n")
    assert [passage.text for passage in read_corpus([path])] == ["Velmora\ta town", "Hator\ta chair"]
    assert "name it .tsv and give --columns name=1,description=2" in caplog.text


@pytest.mark.parametrize(("mark", "suffix"), [(";", ".csv"), (",", ".csv"), ("\t", ".tsv")])
def test_a_text_whose_first_line_may_be_a_header_of_unknown_names_is_told_and_the_way_out_works(
    tmp_path, caplog, mark, suffix
):
    path = write(tmp_path / "g.txt", f"\nBegriff{mark}Erklärung\nVelmora{mark}a town\nHator{mark}a chair\n")
    assert [passage.title for passage in read_corpus([path])] == [""] * 3
    [record] = caplog.records
    assert record.message.startswith(f"{path}:2: read as a text per line, this line too, though all lines split at ")
    assert "give --columns name=Begriff,description=Erklärung; " in record.message
    assert f"name it {suffix} and give --columns name=1,description=2" in record.message
    wanted = [Passage("g-3", "g", "a town", "Velmora"), Passage("g-4", "g", "a chair", "Hator")]
    assert list(read_corpus([path], columns={"name": "Begriff", "description": "Erklärung"})) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "Velmora, a town.\nIt lies by the sea, and has a port, too.\n",
        "We went to Velmora by the sea in May, and it rained.\nWe came back in June, and it still rained.\n",
        "Velmora\nHator\n",
        "one line; and no more\n",
        "",
    ],
)
def test_an_ordinary_text_is_not_taken_for_a_table(tmp_path, caplog, text):
    lines = [line for line in text.split("\n") if line]
    path = write(tmp_path / "g.txt", text)
    assert [passage.text for passage in CorpusReader([path], columns={"name": "Begriff"})] == lines
    assert not caplog.records


def test_a_mapped_column_that_the_header_lacks_is_named_with_the_header(tmp_path):
    path = write(tmp_path / "c.csv", "\nProdukt,name\nx,y\n")
    with pytest.raises(ValueError, match="no column") as error:
        list(CorpusReader([path], columns={"aliases": "Synonyme"}))
    assert str(error.value) == f"{path}:2: no column 'Synonyme' for 'aliases'; the header has ['Produkt', 'name']"


@pytest.mark.parametrize(
    ("content", "line", "wanted"),
    [
        ("Produktname;Synonyme\nx;y\n", 1, "the header, split at ',', has ['Produktname;Synonyme']; wanted at least"),
        ("", 1, "the header, split at ',', has []; wanted at least one of name, title, term, description"),
        ("type,aliases\nx,y\n", 1, "has ['type', 'aliases']"),
        ("name,Name\nx,y\n", 1, "column 'name' occurs twice in the header ['name', 'Name']"),
        ('name,text\n"a\nb",c\nd,e,f\n', 4, "3 fields, but the header has 2"),
        ('name\na\n"b\nc\n', 3, "broken quoting, or a row above 16777216 characters (unexpected end of data)"),
        ('name\na\n"b" c\n', 3, "broken quoting"),
        ("name,text,type\na,b,c\n,,c\n", 3, "neither a name nor a text (row ['', '', 'c'])"),
        ("text,aliases\na,b\n", 2, "'aliases' without a title"),
        ("name\n" + "a\0\n", 2, "NUL byte"),
        ("name\na\rb\n", 2, "broken quoting"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path, content, line, wanted):
    path = write(tmp_path / "c.csv", content)
    with pytest.raises(ValueError, match="c\\.csv") as error:
        list(read_corpus([path]))
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert wanted in str(error.value)


def test_another_encoding_and_damage_are_named_with_their_line(tmp_path):
    with pytest.raises(ValueError, match=r"c\.csv:3: not UTF-8"):
        list(read_corpus([write(tmp_path / "c.csv", "name\na\nGröße\n", "latin-1")]))
    whole = gzip.compress(table([["name"], *([str(n)] for n in range(9999))]).encode())
    (tmp_path / "c.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"c\.csv\.gz:\d+: damaged or not gzip"):
        list(read_corpus([tmp_path / "c.csv.gz"]))


def test_a_quote_that_nobody_closes_ends_at_the_longest_field(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_MAX_ROW_LENGTH", 1000)
    path = write(tmp_path / "c.csv", 'name\nfine\n"open\n' + "x" * 100 + "\n" * 2000)
    with pytest.raises(ValueError, match=r"c\.csv:3: broken quoting, or a row above 1000 characters"):
        list(read_corpus([path]))


def test_a_row_ends_at_the_longest_row_in_however_many_fields(tmp_path, monkeypatch):
    """Before, only a field was bounded: fields over many lines were all held before the header's number was asked."""
    monkeypatch.setattr(tables, "_MAX_ROW_LENGTH", 1000)
    long_rows = "name,text\n" + f'a,"{"x" * 400}\n{"y" * 400}"\n' * 5
    path = write(tmp_path / "c.csv", long_rows + 'b,"line\n' + 'line","line\n' * 200)
    with pytest.raises(ValueError, match=r"c\.csv:12: .* a row above 1000 characters \(no end of the row\)"):
        list(read_corpus([path]))


def test_blank_lines_before_a_header_are_not_held():
    lines = itertools.chain(itertools.repeat("\n", 40_000), ["name\n", "x\n", "y,z\n"])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"c\.csv:40003: 2 fields"):
            list(tables.read_table(lines, "c.csv", delimiter=",", columns={}))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5, 9])
def test_parts_share_out_the_rows_whatever_lines_they_take(tmp_path, num_parts):
    rows = [[f"name {n}", "line\n" * n] for n in range(7)]
    path = write(tmp_path / "c.csv", table([["name", "text"], *rows]))
    parts = [CorpusReader([path], part=part, num_parts=num_parts) for part in range(num_parts)]
    titles = [[passage.title for passage in part] for part in parts]
    assert titles == [[f"name {n}" for n in range(part, 7, num_parts)] for part in range(num_parts)]
    assert [part.share_read for part in parts] == [1.0] * num_parts
    whole = {passage.id: passage for passage in CorpusReader([path])}
    assert {passage.id: passage for part in parts for passage in part} == whole
