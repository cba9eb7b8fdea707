"""Samples of the column files that people have, each written after its format's public documentation.

- CoNLL-2003: https://www.clips.uantwerpen.be/conll2003/ner/ (IOB1, `-DOCSTART-`, files called `eng.train`)
- CoNLL-U: https://universaldependencies.org/format.html (ten columns, 1-2, 1.1, comments)
- NorNE: https://github.com/ltgoslo/norne (`name=B-PER` in MISC)
- CoNLL-2012: https://conll.cemantix.org/2012/data.html (`#begin document`, `(PERSON*`, `*)`)
- GermEval 2014: https://sites.google.com/site/germeval2014ner/data (`#` lines, index, word, outer and inner tags)
- UNER: https://github.com/UniversalNER/uner_code (index, word, tag, two columns of `-` and annotators)
- MultiCoNER: https://multiconer.github.io/dataset (`# id ...<tab>domain=...`, word, `_`, `_`, tag)
- Label Studio, CONLL2003: https://labelstud.io/guide/export (`-DOCSTART- -X- O`, `word -X- _ B-PER`)
- WikiNER: https://figshare.com/articles/dataset/5462500 (`word|POS|TAG`, a sentence on each line)
"""

from __future__ import annotations

from pathlib import Path

from ctxner.files.lines import ReadResult
from ctxner.labels import gold_spans
from ctxner.schema import Sentence

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
