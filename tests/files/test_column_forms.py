"""The column files that people have, each written after its format's public documentation, and read without options.

- CoNLL-2003: https://www.clips.uantwerpen.be/conll2003/ner/ (IOB1, `-DOCSTART-`, files called `eng.train`)
- CoNLL-U: https://universaldependencies.org/format.html (ten columns, 1-2, 1.1, comments)
- NorNE: https://github.com/ltgoslo/norne (`name=B-PER` in MISC)
- CoNLL-2012: https://conll.cemantix.org/2012/data.html (`#begin document`, `(PERSON*`, `*)`)
- GermEval 2014: https://sites.google.com/site/germeval2014ner/data (`#` lines, index, word, outer and inner tags)
- UNER: https://github.com/UniversalNER/uner_code (index, word, tag, two columns of `-` and annotators)
- MultiCoNER: https://multiconer.github.io/dataset (`# id ...<tab>domain=...`, word, `_`, `_`, tag)
- Label Studio, CONLL2003: https://labelstud.io/guide/export (`-DOCSTART- -X- O`, `word -X- _ B-PER`)
- WikiNER: https://figshare.com/articles/dataset/5462500 (`word|POS|TAG`, a sentence on each line)
- BILOU: https://spacy.io/api/doc (`biluo_tags_to_offsets`); BMES: https://github.com/jiesutd/LatticeLSTM
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxner.config import load_config
from ctxner.files.columns import ColumnFormat
from ctxner.files.documents import iter_documents
from ctxner.files.lines import ReadResult
from ctxner.files.paths import kind_of
from ctxner.files.sentences import read_sentences
from ctxner.labels import gold_spans
from ctxner.schema import Sentence, Span

CONLL_2003 = """\
-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
heads VBZ I-VP O
for IN I-PP O
Baghdad NNP I-NP I-LOC
. . O O

Britain NNP I-NP I-LOC
, , O O
Spain NNP I-NP I-LOC
Sweden NNP B-NP B-LOC

"""

NORNE = """\
# newdoc id = avis-7
# sent_id = 000001
# text = Hun bor i vannet i New York
1\tHun\thun\tPRON\t_\tCase=Nom\t2\tnsubj\t_\tname=O
2\tbor\tbo\tVERB\t_\t_\t0\troot\t_\tname=O
3-4\ti vannet\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
3\ti\ti\tADP\t_\t_\t4\tcase\t_\tname=O
4\tvannet\tvann\tNOUN\t_\t_\t2\tobl\t_\tname=O
4.1\tog\tog\tCCONJ\t_\t_\t_\t_\t_\t_
5\ti\ti\tADP\t_\t_\t6\tcase\t_\tname=O
6\tNew\tNew\tPROPN\t_\t_\t4\tnmod\t_\tname=B-GPE_LOC
7\tYork\tYork\tPROPN\t_\t_\t6\tflat:name\t_\tSpaceAfter=No|name=I-GPE_LOC

# sent_id = 000002
1\t#\t#\tSYM\t_\t_\t0\troot\t_\tname=O
2\tKari\tKari\tPROPN\t_\t_\t1\tnmod\t_\tname=B-PER

"""

CONLL_2012 = """\
#begin document (bc/cctv/00/cctv_0000); part 000
bc/cctv/00/cctv_0000   0   0       Vandenberg   NNP  (TOP(S(NP*      -    -   -   Speaker#1  (PERSON*   (ARG0*   -
bc/cctv/00/cctv_0000   0   1              and    CC           *      -    -   -   Speaker#1         *)      *)   (5
bc/cctv/00/cctv_0000   0   2             Hong   NNP       (NP*)      -    -   -   Speaker#1     (GPE)       *    5)

bc/cctv/00/cctv_0000   0   0             They   PRP   (TOP(S*))      -    -   -   Speaker#1          *   -

#end document
#begin document (bc/cctv/00/cctv_0000); part 001
bc/cctv/00/cctv_0000   1   0               No    UH     (TOP*)      -    -   -   Speaker#1      (ORG*   -
bc/cctv/00/cctv_0000   1   1                #    UH          *      -    -   -   Speaker#1     (GPE)*)  -

#end document
"""

GERMEVAL = """\
#\thttp://de.wikipedia.org/wiki/Manfred_Korfmann [2009-10-17]
1\tAufgrund\tO\tO
2\tseiner\tO\tO
3\tRostocker\tB-LOCderiv\tO
4\tZeit\tO\tO

# n-tv.de vom 26.02.2005 [2005-02-26]
1\tFC\tB-ORG\tO
2\tKickers\tI-ORG\tO
3\tDarmstadt\tI-ORG\tB-LOC
"""

UNER = """\
# sent_id = weblog-juancole-1
# text = From the AP
1\tFrom\tO\t-\tann1
2\tthe\tO\t-\tann1
3\tAP\tB-ORG\t-\tann1
"""

MULTICONER = """\
# id fa8a6c8b-1\tdomain=en
the _ _ O
new _ _ B-CW
world _ _ I-CW

# id fa8a6c8b-2\tdomain=en
x _ _ O
"""

LABEL_STUDIO = """\
-DOCSTART- -X- O
Ann -X- _ B-PER
sings -X- _ O

Bo -X- _ B-PER
Li -X- _ I-PER

-DOCSTART- -X- O
Oslo -X- _ B-LOC
"""

WIKINER = """\
The|DT|I-MISC Oxford|NNP|I-MISC Companion|NNP|I-MISC is|VBZ|O a|b|NN|O book|NN|O

Paris|NNP|I-LOC France|NNP|B-LOC
"""

FORMS = {
    "conll-2003": (CONLL_2003, "columns, IOB1", [3, 3], ["f-document-0", "f-document-0"]),
    "norne": (NORNE, "CoNLL-U, IOB2", [1, 1], ["avis-7", "avis-7"]),
    "conll-2012": (CONLL_2012, "CoNLL-2012, IOB2", [2, 0, 2], ["bc/cctv/00/cctv_0000"] * 3),
    "germeval": (GERMEVAL, "numbered columns, IOB2", [1, 2], [None, None]),
    "uner": (UNER, "numbered columns, IOB2", [1], [None]),
    "multiconer": (MULTICONER, "columns, IOB2", [1, 0], [None, None]),
    "label-studio": (LABEL_STUDIO, "columns, IOB2", [1, 1, 1], ["f-document-0"] * 2 + ["f-document-1"]),
    "wikiner": (WIKINER, "word|TAG, IOB1", [1, 2], [None, None]),
}


def write(tmp_path: Path, content: str | bytes, name: str = "f.conll") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mentions(sentence: Sentence) -> list[tuple[str, str]]:
    return [(" ".join(sentence.words[span.start : span.end]), span.type) for span in gold_spans(sentence)]


def remarks(result: ReadResult) -> dict[str, list[str]]:
    """Places without the file's name."""
    return {
        what: [place.split("/f.")[1].split(":", 1)[1] for place in own.places] for what, own in result.remarks.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_says_what_it_is_needs_no_options(tmp_path, form):
    content, recognised, num_mentions, documents = FORMS[form]
    path = write(tmp_path, content)
    result = read_sentences(path)
    assert [len(gold_spans(sentence)) for sentence in result.sentences] == num_mentions
    assert [sentence.document for sentence in result.sentences] == documents
    assert result.recognised == {str(path): recognised}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["eng.train", "dev", "x.v0_gold_conll", "esp.testa.gz"])
def test_a_file_with_an_odd_suffix_or_none_is_looked_into(tmp_path, form, name):
    content = FORMS[form][0].encode()
    path = write(tmp_path, gzip.compress(content) if name.endswith(".gz") else content, name)
    bare = write(tmp_path, content, "f.conll")
    assert kind_of(path) == "columns"
    read, wanted = (read_sentences(own).sentences for own in (path, bare))
    assert [(own.words, own.tags) for own in read] == [(own.words, own.tags) for own in wanted]


@pytest.mark.parametrize("form", FORMS)
def test_files_to_tag_have_the_words_of_a_tagged_reading(tmp_path, form):
    path = write(tmp_path, FORMS[form][0])
    documents = list(iter_documents(path))
    assert [(own.id, own.words) for own in documents] == [(own.id, own.words) for own in read_sentences(path).sentences]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "NUL: the file is binary or UTF-16"),
        (b"a text\nof lines\n", r"unknown suffix '\.train'.*, or words and tags in columns"),
        (b"", "unknown suffix"),
    ],
)
def test_other_files_with_an_odd_suffix_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"some\.train: {message}"):
        read_sentences(write(tmp_path, content, "some.train"))


def test_conll_2003_as_released_is_read_as_iob1(tmp_path):
    one, two = read_sentences(write(tmp_path, CONLL_2003)).sentences
    assert mentions(one) == [("U.N.", "ORG"), ("Ekeus", "PER"), ("Baghdad", "LOC")]
    assert mentions(two) == [("Britain", "LOC"), ("Spain", "LOC"), ("Sweden", "LOC")]


def test_conll_u_gives_ids_documents_and_syntactic_words(tmp_path):
    result = read_sentences(write(tmp_path, NORNE))
    one, two = result.sentences
    assert (one.id, two.id) == ("000001", "000002")
    assert one.words == ("Hun", "bor", "i", "vannet", "i", "New", "York")
    assert two.words == ("#", "Kari")
    assert mentions(one) == [("New York", "GPE_LOC")]
    assert remarks(result) == {
        "multiword tokens (1-2): their words are read": ["6"],
        "empty nodes (1.1): left out": ["9"],
    }


def test_conll_u_without_names_has_no_gold_and_says_so(tmp_path):
    path = write(tmp_path, "1\ta\t_\tX\t_\t_\t0\troot\t_\tSpaceAfter=No\n", "f.conllu")
    result = read_sentences(path)
    assert result.sentences == [Sentence("f-0", ("a",))]
    assert result.recognised == {str(path): "CoNLL-U, no tags (no name= in MISC)"}


def test_conll_u_with_tags_as_its_last_column_is_read_too(tmp_path):
    rest = "_\tX\t_\t_\t0\troot\t_"
    (sentence,) = read_sentences(write(tmp_path, f"1\ta\t{rest}\tB-x\n2\tb\t{rest}\tO\n")).sentences
    assert (sentence.words, sentence.tags) == (("a", "b"), ("S-x", "O"))


def test_gold_on_the_line_of_a_multiword_token_is_not_dropped_in_silence(tmp_path):
    rest = "_\tX\t_\t_\t0\troot\t_"
    path = write(tmp_path, f"1-2\tdel\t{rest}\tname=B-x\n1\tde\t{rest}\tname=O\n2\tel\t{rest}\t_\n")
    assert remarks(read_sentences(path))["mentions on lines of multiword tokens or empty nodes: not read"] == ["1"]


def test_an_id_that_a_column_file_gives_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r":15: id '000001' was used before at .*f.conll:4"):
        read_sentences(write(tmp_path, NORNE.replace("000002", "000001")))


def test_brackets_of_conll_2012_are_mentions_and_of_nested_ones_the_outermost_is_a_tag(tmp_path):
    result = read_sentences(write(tmp_path, CONLL_2012))
    assert [mentions(own) for own in result.sentences] == [
        [("Vandenberg and", "PERSON"), ("Hong", "GPE")],
        [],
        [("No #", "ORG"), ("#", "GPE")],
    ]
    assert [own.tags for own in result.sentences][2] == ("B-ORG", "E-ORG")
    assert remarks(result) == {"mentions that overlap a longer one": ["11: [3, 4, 'GPE'] '#'"]}


def test_nested_brackets_are_counted_each_once(tmp_path):
    path = write(tmp_path, "a\t(X(Y*\nb\t(Z)\nc\t*))\nd\t(X(X))\n")
    result = read_sentences(path)
    assert gold_spans(result.sentences[0]) == (Span(0, 3, "X"), Span(0, 3, "Y"), Span(1, 2, "Z"), Span(3, 4, "X"))
    assert result.sentences[0].tags == ("B-X", "I-X", "E-X", "S-X")
    assert sorted(remarks(result)) == ["mentions given twice", "mentions that overlap a longer one"]


@pytest.mark.parametrize(("content", "line_no"), [("conll-2012", 11), ("germeval", 10)])
def test_nested_mentions_of_column_files_are_refused_where_asked(tmp_path, content, line_no):
    path = write(tmp_path, {"conll-2012": CONLL_2012, "germeval": GERMEVAL}[content])
    assert len(read_sentences(path, ColumnFormat(overlaps="longest")).sentences) in (2, 3)
    with pytest.raises(ValueError, match=rf"f.conll:{line_no}: entities .* overlap, .*data.overlaps=longest"):
        read_sentences(path, ColumnFormat(overlaps="refuse"))
    untagged = ColumnFormat(overlaps="refuse", tag_column=None)
    assert all(own.tags is None and own.text is None for own in read_sentences(path, untagged).sentences)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("(A* *", r": the bracket \(A is not closed at the end of the sentence"),
        ("* *)", r": '\*\)' closes a bracket that is not open"),
        ("(A* B)", r": 'B\)' is not a bracketed tag; wanted \*, \(TYPE\*, \*\) or \(TYPE\)"),
    ],
)
def test_broken_brackets_are_refused_by_line(tmp_path, cells, message):
    first, second = cells.split()
    head = "c\t*\nd\t(A)\n\n" * 500  # it decides what the cells are
    with pytest.raises(ValueError, match=rf"f.conll:1502{message}"):
        read_sentences(write(tmp_path, f"{head}a\t{first}\nb\t{second}\n"))


def test_the_second_tag_column_of_germeval_is_of_nested_mentions_and_can_be_read_alone(tmp_path):
    path = write(tmp_path, GERMEVAL, "f.tsv")
    result = read_sentences(path)
    assert [mentions(own) for own in result.sentences] == [
        [("Rostocker", "LOCderiv")],
        [("FC Kickers Darmstadt", "ORG"), ("Darmstadt", "LOC")],
    ]
    assert result.sentences[1].tags == ("B-ORG", "I-ORG", "E-ORG")
    told = "nested mentions in column 3 (--set data.tag_column=3 reads it alone, 2 the outer ones alone)"
    assert remarks(result) == {
        told: ["10"],
        "mentions that overlap a longer one": ["10: [11, 20, 'LOC'] 'Darmstadt'"],
    }
    for column, wanted in ((2, [("FC Kickers Darmstadt", "ORG")]), (3, [("Darmstadt", "LOC")])):
        format = load_config(None, [f"data.tag_column={column}", "data.overlaps=refuse"]).data.column_format()
        alone = read_sentences(path, format)
        assert (mentions(alone.sentences[1]), alone.remarks) == (wanted, {})


def test_a_nested_column_may_have_mentions_outside_of_others_and_longer_ones(tmp_path):
    rows = ["1\ta\tO\tB-X", "2\tb\tB-Y\tB-Z", "3\tc\tO\tI-Z", "4\td\tB-Y\tB-Y"]
    (sentence,) = read_sentences(write(tmp_path, "\n".join(rows) + "\n")).sentences
    assert gold_spans(sentence) == (Span(0, 1, "X"), Span(1, 2, "Y"), Span(1, 3, "Z"), Span(3, 4, "Y"))
    assert sentence.tags == ("S-X", "B-Z", "E-Z", "S-Y")


def test_words_of_piped_lines_may_hold_the_separator(tmp_path):
    one, two = read_sentences(write(tmp_path, WIKINER)).sentences
    assert one.words == ("The", "Oxford", "Companion", "is", "a|b", "book")
    assert mentions(two) == [("Paris", "LOC"), ("France", "LOC")]


def test_one_piped_word_per_line_and_blank_lines_are_read_too(tmp_path):
    one, two = read_sentences(write(tmp_path, "Ann|B-PER\nsings|O\n\nBo|B-PER\n")).sentences
    assert (one.words, one.tags, two.words) == (("Ann", "sings"), ("S-PER", "O"), ("Bo",))


@pytest.mark.parametrize(
    ("tags", "recognised", "bioes"),
    [
        ("I-a I-a B-a I-b O", "IOB1", "B-a E-a S-a S-b O"),
        ("B-a I-a B-a B-b O", "IOB2", "B-a E-a S-a S-b O"),
        ("B-a E-a S-a S-b O", "BIOES", "B-a E-a S-a S-b O"),
        ("B-a I-a L-a U-b O", "BILOU", "B-a I-a E-a S-b O"),
        ("B-a M-a E-a W-b O", "BMEWO", "B-a I-a E-a S-b O"),
        ("B-a M-a E-a S-b O", "BMES", "B-a I-a E-a S-b O"),
        ("b-PER i-PER o", "IOB2, lower-case prefixes", "B-PER E-PER O"),
        ("u-per o b-loc l-loc", "BILOU, lower-case prefixes", "S-per O B-loc E-loc"),
        ("PER-B PER-I O", "IOB2, suffixes", "B-PER E-PER O"),
        ("creative-work-S O", "BIOES, suffixes", "S-creative-work O"),
        ("O O", "IOB2", "O O"),
    ],
)
def test_scheme_and_spelling_are_those_that_make_all_sentences_legal(tmp_path, tags, recognised, bioes):
    lines = "".join(f"w\t{tag}\n" for tag in tags.split())
    path = write(tmp_path, f"{lines}\n{lines}")
    result = read_sentences(path)
    assert [" ".join(own.tags) for own in result.sentences] == [bioes] * 2
    assert result.recognised == {str(path): f"columns, {recognised}"}
    assert not result.remarks


def test_a_scheme_is_that_of_the_last_sentence_too(tmp_path):
    """The first sentences of an IOB1 file are legal IOB2 as well; the whole file is not."""
    path = write(tmp_path, "a\tO\n\n" * 3000 + "b\tI-x\n")
    result = read_sentences(path)
    assert result.sentences[-1].tags == ("S-x",)
    assert result.recognised == {str(path): "columns, IOB1"}


def test_neighbouring_equal_tags_without_prefix_are_one_mention_and_that_is_said(tmp_path):
    path = write(tmp_path, "a\tPER\nb\tPER\nc\tLOC\nd\tO\n\ne\tO\n\nf\tO\ng\tLOC\n")
    result = read_sentences(path)
    assert [own.tags for own in result.sentences] == [("B-PER", "E-PER", "S-LOC", "O"), ("O",), ("O", "S-LOC")]
    assert remarks(result) == {"tags without prefix (neighbouring equal tags are one mention)": ["1", "9"]}


def test_tags_without_a_type_have_the_type_entity(tmp_path):
    result = read_sentences(write(tmp_path, "a\tB\nb\tI\nc\tO\n"))
    assert result.sentences[0].tags == ("B-entity", "E-entity", "O")
    assert remarks(result) == {"tags without type (read as 'entity')": ["1"]}


@pytest.mark.parametrize("tags", [["NN", "VB"], ["O", "^", "N"], ["O", "PER", "B-PER"], ["O", "3", "1"], ["O", ""]])
def test_other_columns_are_not_taken_for_tags(tmp_path, tags):
    with pytest.raises(ValueError, match=r"is not a tag .* is this the tag column\? --set data\.tag_column=N"):
        read_sentences(write(tmp_path, "".join(f"w\t{tag}\n" for tag in tags)))


def test_a_column_of_many_words_is_not_one_of_types(tmp_path):
    with pytest.raises(ValueError, match=r"f.conll:2: 'word0' is not a tag"):
        read_sentences(write(tmp_path, "w\tO\n" + "".join(f"w\tword{n}\n\n" for n in range(200))))


ILLEGAL = "a\tO\nb\tB-x\n\nc\tO\nd\tI-x\n\ne\tB-x\nf\tI-x\ng\tB-x\n\nh\tO\ni\tI-x\n"  # IOB1: 2 illegal, IOB2: 2


def test_a_file_that_no_scheme_allows_says_how_many_sentences_and_the_way_out(tmp_path):
    path = write(tmp_path, ILLEGAL)
    message = (
        r":5: tag 'I-x' after 'O' is not legal IOB2; wanted B-x; no scheme allows the whole file: 2 of 4 sentences are "
        r"illegal under the best, IOB2; --set data\.repair=true reads them by conlleval's rules and counts the changes"
    )
    with pytest.raises(ValueError, match=message):
        read_sentences(path)
    result = read_sentences(path, load_config(None, ["data.repair=true"]).data.column_format())
    assert [own.tags[-1] for own in result.sentences] == ["S-x"] * 4
    assert result.num_repaired_tags == 2


@pytest.mark.parametrize(
    ("content", "scheme"),
    [(ILLEGAL, "IOB1"), (ILLEGAL, "BILOU"), (CONLL_2003, "IOB2"), (CONLL_2003, "BIOES"), ("a\tB-x\nb\tL-x\n", "BMEWO")],
)
def test_following_the_hints_leads_to_a_reading_and_never_in_a_circle(tmp_path, content, scheme):
    path, options = write(tmp_path, content), [f"data.scheme={scheme}"]
    with pytest.raises(ValueError, match="--set ") as refused:
        read_sentences(path, load_config(None, options).data.column_format())
    options += [word for word in str(refused.value).split() if word.startswith("data.")]
    assert read_sentences(path, load_config(None, options).data.column_format()).sentences


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*"O#*()|1é", "B-x", "I-x", "1-2", "(x*", "*)", "name=B-x", "-DOCSTART-", ""]))),
    st.sampled_from(["\t", " ", "|", "\r"]),
    st.sampled_from([ColumnFormat(), ColumnFormat(1, 2), ColumnFormat(-2, -1, repair=True), ColumnFormat(0, None)]),
)
def test_any_cells_are_read_or_refused_by_file_and_the_same_each_time(tmp_path_factory, rows, separator, format):
    path = write(tmp_path_factory.mktemp("cells"), "\n".join(separator.join(row) for row in rows))
    try:
        sentences = read_sentences(path, format).sentences
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is fine)
    else:
        assert read_sentences(path, format).sentences == sentences
        assert all(own.tags is None or len(own.tags) == len(own.words) for own in sentences)


def test_an_explicit_scheme_is_a_check_and_its_hint_speaks_of_the_whole_file(tmp_path):
    path = write(tmp_path, CONLL_2003)
    with pytest.raises(ValueError, match=r":3: tag 'I-ORG' at the start .*whole file is legal as IOB1: --set data.sch"):
        read_sentences(path, load_config(None, ["data.scheme=IOB2"]).data.column_format())
    result = read_sentences(path, load_config(None, ["data.scheme=iob1"]).data.column_format())
    assert (len(result.sentences), result.recognised) == (2, {})


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000", "\x0b", "\x85"])
def test_only_tabs_and_spaces_part_columns_and_only_lf_parts_lines(tmp_path, space):
    path = write(tmp_path, f"10{space}000 CD B-NUM\nkm NN O\n\n{space}x NN O\n")
    assert [own.words for own in read_sentences(path).sentences] == [(f"10{space}000", "km"), (f"{space}x",)]


@pytest.mark.parametrize("end", ["\t", "\t\t", " \t ", "\t\u00a0"])
def test_blank_columns_after_the_tags_are_dropped_on_any_line(tmp_path, end):
    path = write(tmp_path, f"a\tB-x{end}\nb\tI-x\nc\tO{end}\n\nd\tO\n")
    assert [own.tags for own in read_sentences(path).sentences] == [("B-x", "E-x", "O"), ("O",)]


@pytest.mark.parametrize(
    ("comment", "num_comments"),
    [
        ("# text = Bo\tO and B-x", 1),
        ("#\thttp://x.org [2009]", 1),
        ("# id 7\tdomain=en", 1),
        ("# O", 0),
        ("#\tO", 0),
        ("# x\tB-x", 0),
        ("#begin document (x)", 1),
    ],
)
def test_a_line_before_the_first_word_is_a_comment_unless_it_is_a_word_with_its_tag(tmp_path, comment, num_comments):
    result = read_sentences(write(tmp_path, f"{comment}\nBo\tO\n\n{comment}\n{comment}\nx\tO\n"))
    assert [len(own.words) for own in result.sentences] == ([1, 1] if num_comments else [2, 3])
    assert result.num_comments == 3 * num_comments


def test_long_sentences_are_remarked_and_a_file_without_blank_lines_is_refused(tmp_path):
    lines = "w\tO\n" * 3001
    message = r"f.conll:1: 3001 words without a blank line; wanted one after each sentence, .* awk '{print} \$1 == "
    with pytest.raises(ValueError, match=message):
        read_sentences(write(tmp_path, lines))
    result = read_sentences(write(tmp_path, f"a\tO\n\n{lines}\nb\tO\n"))
    assert [len(own.words) for own in result.sentences] == [1, 3001, 1]
    assert remarks(result) == {"sentence of more than 1000 words": ["3"]}
    assert len(read_sentences(write(tmp_path, "w\tO\n" * 1000)).sentences) == 1
    with pytest.raises(ValueError, match=r"f.conll:3: 50001 words without a blank line"):
        read_sentences(write(tmp_path, "a\tO\n\n" + "w\tO\n" * 60_000))


def test_cr_alone_as_the_end_of_lines_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"f.conll:1: lines end in CR alone, .*: tr '\\r' '\\n' < .*f\.conll > conv"):
        read_sentences(write(tmp_path, "a\tO\rb\tO\r\rc\tO\r"))


@pytest.mark.parametrize(
    ("encoding", "word"), [("cp1252", "naïve–€"), ("latin-1", "Å"), ("shift_jis", "東京"), ("utf-16", "Zoë")]
)
def test_another_encoding_is_read_when_it_is_named(tmp_path, encoding, word):
    path = write(tmp_path, f"{word}\tB-x\r\nb\tO\r\n\r\nc\tO\r\n".encode(encoding))
    with pytest.raises(ValueError, match=r"f.conll:1: (not UTF-8.*--set data.encoding=cp1252|NUL)"):
        read_sentences(path)
    format = load_config(None, [f"data.encoding={encoding}"]).data.column_format()
    assert [own.words for own in read_sentences(path, format).sentences] == [(word, "b"), ("c",)]
    assert next(iter_documents(path, format=format)).words == (word, "b")


def test_bytes_that_the_named_encoding_lacks_are_refused_by_line(tmp_path):
    path = write(tmp_path, b"a\tO\n\nb\x81\tO\n")
    with pytest.raises(ValueError, match=r"f.conll:3: not cp1252: byte 0x81; give another data.encoding"):
        read_sentences(path, ColumnFormat(encoding="cp1252"))
    with pytest.raises(ValueError, match=r"not utf-16"):
        read_sentences(write(tmp_path, b"\xff\xfea\0\t\0O\0\n\0\x00\xd8"), ColumnFormat(encoding="utf-16"))


def test_plain_text_in_another_encoding_is_read_when_it_is_named(tmp_path):
    path, format = write(tmp_path, "Zoë fährt.\n".encode("cp1252"), "a.txt"), ColumnFormat(encoding="cp1252")
    assert next(iter_documents(path, "text", format=format)).text == "Zoë fährt."
    assert next(iter_documents(path, "files", format=format)).text == "Zoë fährt.\n"
    assert read_sentences(path, format, kind="text").sentences[0].words[0] == "Zoë"
    for kind in ("text", "files"):
        with pytest.raises(ValueError, match=r"not UTF-8: byte 0xeb at offset 2; .*--set data.encoding=cp1252"):
            list(iter_documents(path, kind))
