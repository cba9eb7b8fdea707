"""Concepts of a SKOS vocabulary and classes of an OWL ontology, in RDF -> records. Source: SKOS Reference, W3C 2009.

RDF is parsed by rdflib, an extra, which holds the whole graph in memory: some 1 KB per statement. JSON-LD is not read,
because its parser fetches contexts from the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from ctxner.retrieval.corpus.rdf_xml import BoundedXML, UnboundedXMLError

if TYPE_CHECKING:
    from rdflib import Graph
    from rdflib.term import Node

FORMATS = {".ttl": "turtle", ".nt": "nt", ".rdf": "xml", ".owl": "xml"}
_OBO_IN_OWL = "http://www.geneontology.org/formats/oboInOwl#"
_DEFINITION = "http://purl.obolibrary.org/obo/IAO_0000115"


def read_concepts(stream: BinaryIO, name: str, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The concepts and classes that have a name and are not deprecated, by IRI, numbered from 1.

    The title is the preferred label (`skos:prefLabel`, else `rdfs:label`) without a language, else in English, else the
    first by language tag. Preferred labels in other languages, alternative and hidden labels and exact and narrow
    synonyms are aliases: a name is looked up whatever its language. The type is the name of the concept scheme. Several
    definitions are joined.

    Args:
        stream: Decompressed file.
        name: Name of the file in errors.
        suffix: One of `FORMATS`.

    Raises:
        ValueError: rdflib is not installed, or the file is not RDF of its format, or beyond the bounds of `rdf_xml`.
    """
    try:
        from rdflib import OWL, RDF, RDFS, SKOS, Graph, URIRef
    except ModuleNotFoundError as error:
        raise ValueError(f"{name}: reading RDF needs rdflib; install it: pip install 'ctxner[rdf]'") from error
    graph = Graph()
    content: Any = BoundedXML(stream, name) if FORMATS[suffix] == "xml" else stream
    try:
        graph.parse(content, format=FORMATS[suffix], publicID="file:///")
    except UnboundedXMLError:
        raise
    except Exception as error:  # each parser of rdflib has errors of its own
        raise ValueError(f"{name}: not readable as RDF ({FORMATS[suffix]}): {error!s:.300}") from error
    preferred, exact = (SKOS.prefLabel, RDFS.label), URIRef(f"{_OBO_IN_OWL}hasExactSynonym")
    others = (SKOS.altLabel, SKOS.hiddenLabel, exact, URIRef(f"{_OBO_IN_OWL}hasNarrowSynonym"))
    definitions = (SKOS.definition, URIRef(_DEFINITION), SKOS.scopeNote)
    things = {thing for kind in (SKOS.Concept, OWL.Class) for thing in graph.subjects(RDF.type, kind)}
    named = sorted(thing for thing in things if isinstance(thing, URIRef) and _texts(graph, thing, *preferred))
    for number, thing in enumerate(named, 1):
        if any(str(value).lower() == "true" for value in graph.objects(thing, OWL.deprecated)):
            continue
        title, *aliases = _texts(graph, thing, *preferred)
        aliases += _texts(graph, thing, *others)
        schemes = sorted(graph.objects(thing, SKOS.inScheme), key=str)
        scheme = [text for scheme in schemes for text in _texts(graph, scheme, *preferred, *_titles())[:1]]
        record: dict[str, Any] = {"id": str(thing), "title": title, "type": scheme[0] if scheme else ""}
        record["aliases"] = [alias for alias in dict.fromkeys(aliases) if alias != title]
        yield number, record | {"contents": " ".join(_texts(graph, thing, *definitions))}


def _titles() -> tuple[Node, ...]:
    from rdflib import DC, DCTERMS

    return DCTERMS.title, DC.title


def _texts(graph: Graph, thing: Node, *properties: Node) -> list[str]:
    """Texts of the first to the last property; of each those without a language first, then English, then others."""
    texts = list[str]()
    for wanted in properties:
        values = {(str(getattr(value, "language", None) or ""), str(value)) for value in graph.objects(thing, wanted)}
        texts += [text for _, text in sorted(values, key=lambda value: (value[0] not in ("", "en"), value))]
    return list(dict.fromkeys(filter(None, map(str.strip, texts))))
