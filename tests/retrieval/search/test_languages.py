"""Each language that is offered: a line of a corpus and a sentence about the same name meet, in every query mode."""

import json
import unicodedata
from typing import get_args

import pytest

from ctxner.config import IndexConfig
from ctxner.files.words import split_words
from ctxner.languages import LANGUAGES
from ctxner.retrieval.index.build import build_index
from ctxner.retrieval.index.changes import add_passages
from ctxner.retrieval.lucene.jvm import java_class
from ctxner.retrieval.search.analyzed import AnalyzedSentences
from ctxner.retrieval.search.bm25 import BM25Searcher
from ctxner.retrieval.search.query import QueryMode
from ctxner.schema import Sentence

# Language: a line of the corpus, the sentence, and the name in it.
PAIRS = {
    "ar": ("القاهرة عاصمة مصر", "سافرت أمس إلى القاهرة", "القاهرة"),
    "bn": ("ঢাকা বাংলাদেশের রাজধানী", "আমি গতকাল ঢাকা গিয়েছিলাম", "ঢাকা"),
    "da": ("København er Danmarks hovedstad", "Vi rejste til København i går", "København"),
    "de": ("München ist die Hauptstadt Bayerns", "Wir fuhren gestern nach München", "München"),
    "en": ("London is the capital of England", "We flew to London yesterday", "London"),
    "es": ("Bogotá es la capital de Colombia", "Ayer viajamos a Bogotá", "Bogotá"),
    "fa": ("تهران پایتخت ایران است", "دیروز به تهران رفتم", "تهران"),
    "fi": ("Helsinki on Suomen pääkaupunki", "Näimme eilen kauniin kaupungin nimeltä Helsinki", "Helsinki"),
    "fr": ("Orléans est une ville de la Loire", "Nous arrivons d'Orléans", "Orléans"),
    "hi": ("दिल्ली भारत की राजधानी है", "मैं कल दिल्ली गया", "दिल्ली"),
    "hu": ("Budapest Magyarország fővárosa", "Tegnap láttuk Budapest utcáit", "Budapest"),
    "id": ("Jakarta adalah ibu kota Indonesia", "Kemarin kami pergi ke Jakarta", "Jakarta"),
    "it": ("L'Aquila è il capoluogo dell'Abruzzo", "Siamo stati nell'Abruzzo ieri", "Abruzzo"),
    "ja": ("東京は日本の首都です", "昨日東京に行った", "東京"),
    "km": ("ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "ខ្ញុំរស់នៅភ្នំពេញ", "ភ្នំពេញ"),
    "ko": ("서울은 대한민국의 수도이다", "나는 서울에 산다", "서울"),
    "lo": ("ວຽງຈັນເປັນນະຄອນຫຼວງຂອງລາວ", "ຂ້ອຍຢູ່ວຽງຈັນ", "ວຽງຈັນ"),
    "my": ("ရန်ကုန်သည်မြန်မာနိုင်ငံ၏မြို့ဖြစ်သည်", "ကျွန်တော်ရန်ကုန်မှာနေတယ်", "ရန်ကုန်"),
    "nl": ("Amsterdam is de hoofdstad van Nederland", "Gisteren reisden we naar Amsterdam", "Amsterdam"),
    "no": ("Tromsø er en by i Norge", "Vi reiste til Tromsø i går", "Tromsø"),
    "pl": ("Warszawa jest stolicą Polski", "Mieszkam w Warszawie", "Warszawie"),
    "pt": ("São Paulo é uma cidade do Brasil", "Ontem viajamos para São Paulo", "São Paulo"),
    "ru": ("Москва является столицей России", "Вчера мы приехали в Москву", "Москву"),
    "sv": ("Malmö är en stad i Skåne", "Vi reste till Malmö i går", "Malmö"),
    "te": ("హైదరాబాద్ తెలంగాణ రాజధాని", "నేను నిన్న హైదరాబాద్ వెళ్ళాను", "హైదరాబాద్"),
    "th": ("กรุงเทพเป็นเมืองหลวงของประเทศไทย", "เมื่อวานผมไปกรุงเทพมา", "กรุงเทพ"),
    "tr": ("İstanbul Türkiye'nin en kalabalık şehridir", "Dün İSTANBUL'da IŞIKLAR yandı", "İSTANBUL"),
    "uk": ("Київ є столицею України", "Я живу в Києві", "Києві"),
    "zh": ("上海是中国的一座城市", "我住在上海", "上海"),
}
MODES = get_args(QueryMode)


def sentence(text):
    return Sentence("s", tuple(text[start:end] for start, end in split_words(text)))


def index_of(folder, passages, language):
    lines = [{"id": f"p{n}", "source": "s", **passage} for n, passage in enumerate(passages)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_index([folder / "corpus.jsonl"], folder / "index", language=language)
    return folder / "index"


@pytest.fixture(scope="module", params=PAIRS)
def language(request, tmp_path_factory):
    """A language, an index of its line, an entry of its name and a text about neither."""
    line, _, name = PAIRS[request.param]
    passages = [{"text": line}, {"text": "a text that says nothing of it"}, {"title": name, "text": ""}]
    return request.param, index_of(tmp_path_factory.mktemp(request.param), passages, request.param)


def test_every_language_of_anserini_is_tried():
    analyzers = java_class("io.anserini.analysis.AnalyzerMap").analyzerMap.keySet().toArray()
    assert {*analyzers, "en"} <= set(PAIRS) == set(LANGUAGES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_line_and_a_sentence_about_the_same_name_meet(language, mode, form):
    code, folder = language
    searcher = BM25Searcher(folder, query_mode=mode)
    (result,) = searcher.search([sentence(unicodedata.normalize(form, PAIRS[code][1]))], depth=3)
    searcher.close()
    assert result.error is None
    assert result.query
    ids = [hit.passage.id for hit in result.hits]
    assert "p0" in ids
    assert "p1" not in ids


def test_a_corpus_in_decomposed_characters_is_indexed_in_composed_ones(tmp_path):
    lines = ("fr", "Besançon est en France", "On va à Besançon"), ("en", "Besançon is old", "We drove to Besançon")
    for language, line, text in lines:
        (tmp_path / language).mkdir()
        folder = index_of(tmp_path / language, [{"text": unicodedata.normalize("NFD", line)}], language)
        for mode in MODES:
            (result,) = BM25Searcher(folder, query_mode=mode).search([sentence(text)], depth=3)
            assert [hit.passage.text for hit in result.hits] == [unicodedata.normalize("NFD", line)], mode


def test_the_entry_that_a_sentence_names_is_linked_to_exactly_its_words(language):
    code, folder = language
    _, text, name = PAIRS[code]
    (result,) = BM25Searcher(folder).search([sentence(text)], depth=3)
    start = text.index(name)
    words = [n for n, (a, b) in enumerate(split_words(text)) if a < start + len(name) and b > start]
    assert {hit.passage.id: hit.named for hit in result.hits if hit.named} == {"p2": ((words[0], words[-1] + 1),)}


def test_a_language_that_is_not_offered_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "x", "source": "s"}')
    for act in (
        lambda: build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", language="xx"),
        lambda: IndexConfig(language="xx"),
    ):
        with pytest.raises(ValueError, match=r"language 'xx'; wanted one of ar \(Arabic\), .*zh \(Chinese\)"):
            act()
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(("code", "tells"), [("zh", True), ("en", False)])
def test_an_index_of_a_former_release_says_that_it_must_be_built_again(tmp_path, caplog, code, tells):
    folder = index_of(tmp_path, [{"text": PAIRS[code][0]}], code)
    (path,) = folder.glob("v*/manifest.json")
    manifest = json.loads(path.read_text())
    BM25Searcher(folder).close()
    assert not caplog.messages
    del manifest["text_rules"]
    path.write_text(json.dumps(manifest))
    BM25Searcher(folder).close()
    assert ["build it again" in message for message in caplog.messages] == [True] * tells
    (tmp_path / "more.jsonl").write_text('{"id": "new", "text": "x", "source": "s"}')
    if tells:
        with pytest.raises(ValueError, match="build it again"):
            add_passages([tmp_path / "more.jsonl"], folder)
    else:
        add_passages([tmp_path / "more.jsonl"], folder)


@pytest.mark.parametrize("code", ["ja", "km", "lo", "my", "th", "zh"])
def test_a_name_in_text_without_blanks_begins_and_ends_with_a_word(code):
    _, text, name = PAIRS[code]
    start = text.index(name)
    starts, ends = zip(*split_words(text), strict=True)
    assert start in starts
    assert start + len(name) in ends


def test_punctuation_ends_a_name_and_a_stop_word_within_does_not(tmp_path):
    folder = index_of(tmp_path, [{"text": "Berlin, Paris und die Stadt an der Spree"}], "de")
    searcher = BM25Searcher(folder, query_mode="mentions")
    analyzed = AnalyzedSentences(searcher._lookups, language="de", num_documents=1)

    def mentions(text):
        search = analyzed.candidates(sentence(text).words)
        try:
            next(search)
            while True:
                search.send(lambda run: True)  # as if every run occurred
        except StopIteration as end:
            return set(end.value)

    assert ("berlin", "paris") not in mentions("Wir sahen Berlin, Paris und mehr")
    assert ("berlin", "paris") in mentions("Wir sahen Berlin Paris und mehr")
    assert ("stadt", "spre") in mentions("Wir sahen die Stadt an der Spree")
    searcher.close()


def test_a_passage_with_the_whole_name_comes_first_though_its_words_have_several_base_forms(tmp_path):
    """Both words of the name stand in either passage; the analyzer gives each of them two base forms."""
    passages = [{"text": "Церква і Біла хмара"}, {"text": "Біла Церква є містом на Київщині"}]
    searcher = BM25Searcher(index_of(tmp_path, passages, "uk"), query_mode="mentions")
    (result,) = searcher.search([sentence("Ми їхали у Білу Церкву вчора")], depth=2)
    searcher.close()
    assert [hit.passage.id for hit in result.hits] == ["p1", "p0"]
