"""SKOS and OWL: labels of all languages are names, the scheme is the type; the files are written after W3C's primer."""

import gzip
import itertools
import time

import pytest

from ctxner.retrieval.corpus.reader import CorpusReader, read_corpus
from ctxner.schema import Passage

pytest.importorskip("rdflib", reason="rdflib is an extra")

SKOS = """@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix dct: <http://purl.org/dc/terms/> .
@prefix ex: <http://example.org/> .

ex:animals a skos:ConceptScheme ; dct:title "animals"@en , "Tiere"@de .
ex:rock-bass a skos:Concept ; skos:inScheme ex:animals ;
    skos:prefLabel "rock bass"@en , "Steinbarsch"@de ;
    skos:altLabel "redeye"@en , " " ; skos:hiddenLabel "rokc bass"@en ;
    skos:definition "A freshwater fish."@en ; skos:scopeNote "Not the sea bass."@en .
ex:cat a skos:Concept ; skos:prefLabel "gato"@es , "chat"@fr .
ex:old a skos:Concept ; skos:prefLabel "old"@en ; owl:deprecated true .
ex:nameless a skos:Concept .
ex:document skos:prefLabel "no concept"@en .
"""
ROCK_BASS = Passage(
    "http://example.org/rock-bass",
    "fish",
    "A freshwater fish. Not the sea bass.",
    "rock bass",
    ("Steinbarsch", "redeye", "rokc bass"),
    "animals",
)
CAT = Passage("http://example.org/cat", "fish", "", "gato", ("chat",))
OWL = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#"
 xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#" xmlns:o="http://www.geneontology.org/formats/oboInOwl#"
 xmlns:obo="http://purl.obolibrary.org/obo/">
<owl:Class rdf:about="http://example.org/D1"><rdfs:label>seizure</rdfs:label><o:hasExactSynonym>fit</o:hasExactSynonym>
<o:hasBroadSynonym>illness</o:hasBroadSynonym><obo:IAO_0000115>A sudden burst.</obo:IAO_0000115></owl:Class>
</rdf:RDF>
"""


@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_concept_is_an_entry_with_its_names_in_all_languages(tmp_path, num_parts):
    path = tmp_path / "fish.ttl"
    path.write_text(SKOS)
    parts = [list(CorpusReader([path], part=part, num_parts=num_parts)) for part in range(num_parts)]
    assert sorted(itertools.chain(*parts), key=lambda passage: passage.id) == [CAT, ROCK_BASS]


def test_a_class_of_an_ontology_has_its_exact_synonyms_and_its_definition(tmp_path):
    path = tmp_path / "d.owl.gz"
    path.write_bytes(gzip.compress(OWL.encode()))
    assert list(read_corpus([path])) == [
        Passage("http://example.org/D1", "d", "A sudden burst.", "seizure", ("fit",), "")
    ]


@pytest.mark.parametrize(("name", "text"), [("a.ttl", "ex:a a ex:b ."), ("a.rdf", "<rdf"), ("a.nt", "a b c")])
def test_what_is_no_rdf_is_refused_with_the_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: not readable as RDF"):
        list(read_corpus([tmp_path / name]))


LEVELS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
PREFIX = '<!DOCTYPE rdf:RDF [<!ENTITY ex "http://example.org/">]>\n'
LITERAL = OWL.replace("<rdfs:label>", '<rdfs:label rdf:parseType="Literal">')
HOSTILE = {
    "a billion laughs": (f'<!DOCTYPE x [<!ENTITY e0 "aha">{LEVELS}]>', "&e9;", OWL, "made of others"),
    "a long entity, often": (f'<!DOCTYPE x [<!ENTITY e "{"a" * 100_000}">]>', "&e;" * 1000, OWL, "made of others"),
    "a short entity, very often": ('<!DOCTYPE x [<!ENTITY e "aha">]>', "&e;" * 400_000, OWL, "a text of more than"),
    "many lines": ("", "a\n" * 400_000, OWL, "a text of more than"),
    "many children of a literal": ("", "<b>a</b>" * 400_000, LITERAL, "a text of more than"),
    "deep elements": ("", "<b>" * 100_000, LITERAL, "nested deeper"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_xml_that_expands_or_never_ends_is_refused_with_its_line(tmp_path, case):
    """Before, 2 KB of a billion laughs kept rdflib busy for minutes: it appends each piece to a copy of the text."""
    head, label, ontology, why = HOSTILE[case]
    (tmp_path / "a.rdf").write_text(head + ontology.replace("seizure", label))
    started = time.process_time()
    with pytest.raises(ValueError, match=rf"a\.rdf:\d+: .*{why}"):
        list(read_corpus([tmp_path / "a.rdf"]))
    assert time.process_time() - started < 20


def test_entities_that_abbreviate_iris_are_read(tmp_path):
    """As Protégé writes them."""
    (tmp_path / "d.owl").write_text(PREFIX + OWL.replace('about="http://example.org/', 'about="&ex;'))
    (entry,) = read_corpus([tmp_path / "d.owl"])
    assert (entry.id, entry.title) == ("http://example.org/D1", "seizure")


def test_an_external_entity_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret words")
    entity = f'<!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>'
    (tmp_path / "a.rdf").write_text(entity + OWL.replace("seizure", "seizure &s;"))
    try:
        passages = list(read_corpus([tmp_path / "a.rdf"]))
    except ValueError:
        return
    assert "secret" not in repr(passages).replace(str(tmp_path), "")
