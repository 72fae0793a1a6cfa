"""Questions made from plain text: what teaches a small reader to look things up before it sees a real question.

Three kinds, all answered by words that stand in the passage:

* *asked*: a sentence of the passage turned into a question about one of its names, numbers, dates or content words
  ("X was founded in 1066." -> "When was X founded?"), some words left out or exchanged so that the question is not a
  copy. This is the shape of most reading-comprehension questions.
* *recurring*: a sentence is **taken out** of the passage and asked about a span that also stands elsewhere in it; the
  reader must infer which entity of the remaining text fits (after Splinter, Ram et al. 2021).
* *cut off*: the beginning of a sentence, its last words being the answer, where these words also stand elsewhere.

No grammar is claimed; regular expressions and a list of function words go far enough for a reader of 20 M parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from latentwire.data.english import AUX, FUNCTION, KINDS, SYNONYMS

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
SENTENCE = re.compile(
    r"(?<=[a-z0-9)\]\"%][.!?])(?<!Dr\.)(?<!Mr\.)(?<!St\.)(?<!Jr\.)(?<!Mrs\.)(?<!vs\.)\s+(?=[\"'(]?[A-Z])"
)
_SPAN = re.compile(
    rf"(?P<date>\b(?:\d{{1,2}} (?:{MONTHS})|(?:{MONTHS}) \d{{1,2}})(?:,? \d{{4}})?\b|\b(?:{MONTHS}) \d{{4}}\b)"
    r"|(?P<year>\b(?:1\d{3}|20[01]\d)\b(?![,.%]\d))"
    r"|(?P<number>[$£€]?\b\d[\d,]*(?:\.\d+)?(?:%| percent| million| billion| km| miles| metres| feet| years)?)"
    r"|(?P<name>\b[A-Z][\w’'-]*[\w](?:(?: of| the| and| de| von| for)?(?:\.? )(?:[A-Z]\.|[A-Z][\w’'-]*\w))*)"
)
_CONTENT = re.compile(
    r"\b(?:(?:the|a|an|its|their|his|her|of|by|for|with|as|in|and|or|called) )"
    r"([a-z][a-z-]{3,}(?: [a-z][a-z-]{3,}){0,2})\b"
)
_CAUSE = re.compile(r"\b(?:because of|because|due to|in order to) ([^,;.]{8,70})")
_PREPOSITION = re.compile(r"(?:^|\s)(in|on|at|by|from|to|with|for|of|near|during|since|until|into|as)\s*$", re.I)


@dataclass(frozen=True)
class Span:
    """A possible answer: ``sentence[start:end]`` of the given kind (date, year, number, name, content or cause)."""

    start: int
    end: int
    kind: str


def passages(article: str, low: int = 350, high: int = 1150) -> Iterator[str]:
    """An article's paragraphs of ``low`` to ``high`` characters: short ones joined, long ones cut between sentences."""
    held = ""
    for line in article.split("\n"):
        if len(line) < 60:  # headings, list items
            continue
        held = f"{held} {line}" if held else line
        while len(held) > high:
            cut = held.rfind(". ", low, high) + 1
            if cut <= 0:
                held = ""
                break
            yield held[:cut]
            held = held[cut + 1 :]
        if len(held) >= low:
            yield held
            held = ""


def spans(sentence: str) -> list[Span]:
    """Everything in a sentence that a question could ask for."""
    found = []
    for match in _SPAN.finditer(sentence):
        kind = match.lastgroup or ""
        text = match.group()
        if kind == "name" and (text.lower() in FUNCTION or len(text) < 3 or text in MONTHS):
            continue
        start, end = match.span()
        if kind == "name" and text.split(" ")[0].lower() in FUNCTION and start == 0:
            start += len(text.split(" ")[0]) + 1
        found.append(Span(start, end, kind))
    for match in _CONTENT.finditer(sentence):
        words = match.group(1).split(" ")
        while words and words[-1] in FUNCTION:
            words.pop()
        stop = next((i for i, word in enumerate(words) if word in FUNCTION), len(words))
        if stop:
            found.append(Span(match.start(1), match.start(1) + len(" ".join(words[:stop])), "content"))
    found += [Span(match.start(1), match.end(1), "cause") for match in _CAUSE.finditer(sentence)]
    return found


def _wh(span: Span, text: str, left: str, right: str, rng: Random) -> tuple[str, str, str]:
    """The question words for a span, with what is left of both sides once they have swallowed their neighbours."""
    kind, preposition = span.kind, _PREPOSITION.search(left)
    before = preposition.group(1).lower() if preposition else ""
    bare = left[: preposition.start()] if preposition else left
    if kind == "cause":
        return "Why", re.sub(r"(?:because of|because|due to|in order to)\s*$", "", left), right
    if kind in ("date", "year"):
        if before in ("in", "on") and rng.random() < 0.6:
            return "When", bare, right
        word = "what year" if kind == "year" else "what date"
        return (f"{before.capitalize()} {word}", bare, right) if before else (word.capitalize(), left, right)
    if kind == "number":
        if "%" in text or "percent" in text:
            return "What percentage", left, right
        if text[0] in "$£€":
            return "How much", left, right
        noun = re.match(r" [a-z]+(?:-[a-z]+)?(?: [a-z]+s\b)?", right)
        return ("How many" + noun.group(), left, right[noun.end() :]) if noun else ("How many", left, right)
    if kind == "name":
        head = text.rsplit(" ", 1)[-1].lower()
        if head in KINDS and rng.random() < 0.7:
            return f"{rng.choice(('What', 'Which'))} {head}", left, right
        if before in ("in", "at", "near", "from") and rng.random() < 0.6:
            return "Where", bare, right
        role = re.search(r"\b([a-z]{4,})\s*$", left)
        if role and role.group(1) not in FUNCTION and rng.random() < 0.7:
            rest = re.sub(r"\b(?:the|a|an)\s*$", "", left[: role.start()])
            return f"{rng.choice(('What', 'Which'))} {role.group(1)}", rest, right
        person = " of " not in text and " the " not in text and text.count(" ") in (1, 2)
        if rng.random() < (0.7 if person or before == "by" else 0.25):
            return "Who", bare if before == "by" else left, right
    return rng.choice(("What", "What", "Which")) if kind == "name" else "What", left, right


def _base(word: str) -> str:
    """A guess at the infinitive of a regular past form."""
    if not word.endswith("ed") or len(word) < 5:
        return word
    stem = word[:-2]
    if stem.endswith("i"):
        return stem[:-1] + "y"
    if stem[-1] == stem[-2] and stem[-1] not in "ls":
        return stem[:-1]
    return stem + "e" if re.search(r"(?:at|iz|is|us|ur|ir|in|c|g|v|u|rs|ns|ut|od|id|ud)$", stem) else stem


def _shorten(side: str, words: int, front: bool) -> str:
    parts = side.split(" ")
    if len(parts) <= words:
        return side
    return " ".join(parts[-words:] if front else parts[:words])


def _blur(text: str, rng: Random, rate: float) -> str:
    """Some words left out, some exchanged: what a person who asks would do to the sentence."""
    kept = []
    for word in text.split(" "):
        if rng.random() < rate and len(kept) > 2:
            continue
        kept.append(SYNONYMS[word] if word in SYNONYMS and rng.random() < 0.5 else word)
    return " ".join(kept)


def ask(sentence: str, span: Span, rng: Random) -> str:
    """A question about one span of a sentence."""
    text = sentence[span.start : span.end]
    left, right = sentence[: span.start], re.sub(r"[\s.!?\"')\]]+$", "", sentence[span.end :])
    wh, left, right = _wh(span, text, left, right, rng)
    left = re.sub(r"^(?:However|Also|Additionally|Thus|Therefore|Then|Later|Finally|Moreover),? ", "", left).strip(
        ' ,;("'
    )
    right = right.strip(" ")
    if rng.random() < 0.7:  # one clause is enough
        right = re.split(r"[,;:(]| which | although | while | but ", right, maxsplit=1)[0]
        left = re.split(r"[;:)] ?|, (?:and|but) ", left)[-1]
    left, right = _shorten(left, rng.randint(6, 12), True), _shorten(right, rng.randint(3, 9), False)
    # what stood in front of the answer alone ("of the", "an") says nothing once the answer is gone
    left = re.sub(r"(?:^|\s)(?:(?:of|by|and|for|with|as) )?(?:the|a|an|its|their|his|her)$", "", left)
    words = left.split(" ") if left else []
    if words and words[0].lower() in FUNCTION:
        words[0] = words[0].lower()
    style = rng.random()
    if not words or words == ["the"]:
        question = f"{wh} {right}"
    elif style < 0.18:
        question = f"{' '.join(words)} {wh[0].lower() + wh[1:]} {right}"
        question = question[0].upper() + question[1:]
    else:
        place = next((i for i, word in enumerate(words) if word in AUX and i), None)
        if place is not None:
            body = [words[place], *words[:place], *words[place + 1 :]]
        else:
            verb = next((i for i, word in enumerate(words) if i and word.endswith("ed") and word not in FUNCTION), None)
            body = words if verb is None else ["did", *words[:verb], _base(words[verb]), *words[verb + 1 :]]
        question = f"{wh} {' '.join(body)} {right}"
    if rng.random() < 0.6:
        question = _blur(question, rng, 0.1 if rng.random() < 0.7 else 0.22)
    return re.sub(r"\s+([,;?])", r"\1", " ".join(question.split())).rstrip(" ,;:") + "?"


def questions(passage: str, rng: Random, most: int = 9) -> tuple[str, list[tuple[str, str]]]:
    """``(context, [(question, answer)])`` of one passage; the context may lack sentences that questions were made of.

    Every answer stands in the context word for word. Deterministic for a given ``rng`` state.
    """
    sentences = SENTENCE.split(passage)
    if len(sentences) < 3:
        return passage, []
    removed: dict[int, list[Span]] = {}
    for index in rng.sample(range(len(sentences)), min(len(sentences) // 3, 2)):
        rest = " ".join(s for i, s in enumerate(sentences) if i != index and i not in removed)
        again = [
            s
            for s in spans(sentences[index])
            if s.kind != "content" and _stands(sentences[index][s.start : s.end], rest)
        ]
        if again:
            removed[index] = again
    context = " ".join(s for i, s in enumerate(sentences) if i not in removed)
    made: list[tuple[str, str]] = []
    for index, again in removed.items():
        sentence = sentences[index]
        for span in rng.sample(again, min(2, len(again))):
            answer = sentence[span.start : span.end]
            if not _stands(answer, context):
                continue
            ends = len(sentence) - span.end < 3
            cut_off = ends and rng.random() < 0.5
            made.append((sentence[: span.start].strip() if cut_off else ask(sentence, span, rng), answer))
    kept = [i for i in range(len(sentences)) if i not in removed and 30 < len(sentences[i]) < 400]
    for index in rng.sample(kept, len(kept)):
        if len(made) >= most:
            break
        found = spans(sentences[index])
        # names and figures carry more than content words; both are asked for
        found.sort(key=lambda span: rng.random() + (0.35 if span.kind == "content" else 0.0))
        for span in found[: 1 + (rng.random() < 0.5)]:
            made.append((ask(sentences[index], span, rng), sentences[index][span.start : span.end]))
    made = [(q, a) for q, a in made if len(q.split(" ")) >= 3 and 0 < len(a) <= 90]
    rng.shuffle(made)
    return context, made[:most]


def _stands(text: str, rest: str) -> bool:
    if len(text) < 3:
        return False
    at = rest.find(text)
    while at >= 0:
        end = at + len(text)
        if (at == 0 or not rest[at - 1].isalnum()) and (end == len(rest) or not rest[end].isalnum()):
            return True
        at = rest.find(text, at + 1)
    return False
