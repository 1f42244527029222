"""The default corpus: English-looking text made here, whose exact entropy rate is known.

A loss curve says more beside the floor that no model can get under. Books have no known floor; this
text has one, because it is a Markov chain whose probabilities are written below.

**The source.** A state is a class of the grammar together with the string written for it. From
class `c` the chain moves to class `d` with probability `P[c, d]`, then writes one of the strings
of `d`. Every probability is a ratio of the integer weights below, and every draw is integer
arithmetic, so the text is the same byte for byte everywhere.
"""

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

SEED = 2021
MIN_CHARACTERS = 200_000
"""Minimum length of the text in characters; its last paragraph is completed."""
ENTROPY = 0.9001168736886939
"""Entropy rate of the text in nats per character; tests/common/test_synthetic.py computes it from
the grammar below, and says why the characters have the entropy of the chain."""

# Words and weights; a weight left out is 1. Nouns are regular, so that a plural only adds an s.
DETERMINERS = "the:9 his:3 her:3 our:2 my:2 this:2 that:2 one each every some no"
PRONOUNS = "he:4 she:4 they:3 we:3 it:2 nobody who"
ADVERBS = """
    soon:2 now:2 never:2 then:2 often again also always barely calmly gladly hardly later nearly
    once only quickly rarely sadly simply slowly still twice"""
CONJUNCTIONS = "and:5 but:4 for:2 so:2 yet:2 or while when as until though because"
PREPOSITIONS = """
    in:3 on:3 at:3 by:3 with:3 for:2 from:2 to:2 near:2 under:2 over past into above after behind
    beside beyond across inside"""
DATES = "in:3 by since before"
ADJECTIVES = """
    old:2 new:2 red:2 big:2 sad dry wet shy odd raw icy hot mad dim low tall dark cold blue grey
    pale kind wise lame slim vast calm warm soft loud deaf blind rusty empty proud young brave
    quiet quick exact mixed dusty giant ivory tiny lazy vivid jolly rapid royal silver golden
    broken wooden velvet frozen hollow narrow hidden"""
NOUNS = """
    king:2 cat:2 dog:2 house:2 road:2 boat:2 ship:2 door:2 ant arm axe bag bed bee bell bird boot
    bowl brook card cart clock cloud coat coin crow cup desk doll duck eagle egg elm eye farm fern
    field fig fire flag flute garden gate ghost goat guard guest hand harp hat hen hill horn hut
    island jar jewel judge key kite lake lamp lantern letter lion map mask maze mill monk moon moth
    nail nest net oak oar orchid owl pan path pear pen piano pig pipe plum pond queen raven ring
    river robe roof room rope rose saddle sail seed shell sign snake song spoon star stone storm
    stove sword tailor tent tiger tower train tree tub tune vase veil violin wall well wheel window
    yard zebra"""
VERBS = """
    saw:3 took:3 had:3 knew:2 found:2 kept:2 lost:2 left:2 held:2 sold made met ate bought broke
    built burnt called carried caught chose cut drew dropped dug fed filled fixed forgot freed gave
    guarded hated heard hid hit hung hurt led lent let liked lit loved mended missed moved opened
    owned painted praised pulled pushed quit raised read sang sent set shook shut spun stole struck
    sought taught threw tied told tore used visited wanted washed weighed won wove wrote"""
MOTIONS = """
    went:3 ran:3 sat:2 came:2 fell:2 stood:2 lay walked waited slept danced jumped swam rode rose
    sailed vanished"""
SPEECH = "said:6 cried:2 sang called whispered"
COMMANDS = """
    bring:2 find:2 take:2 keep leave follow buy sell mend watch open forget feed paint read hang
    hide send steal fetch lift wash trust turn"""
NAMES = """
    anna:2 max:2 liza:2 ben:2 nora ada amos bella boris clara cora daisy dora edith ella emil fanny
    felix helen hugo iris ivan jack jane jonas kate karl klaus leo lucy lotte mary marta moses nell
    otto oscar olga paul peter robert rosa ruth sam simon sofia tilda tom vera victor walter wanda
    willy"""
YEARS = " ".join(map(str, range(1780, 1950)))
COUNTS = " ".join(map(str, range(2, 100)))

# Classes that may follow, and their weights, in the same notation.
SENTENCE = "Determiner:8 Name:5 Owner:2 Pronoun:5 Date:2 Command:3"
CLAUSE = "determiner:5 Name:4 Owner:1 pronoun:4"
ACTION = "verb:5 motion:3 adverb:2"
SUBJECT = "adjective:2 noun:5"
ENDS = {"goes_on": 5, "comma": 3, "semicolon": 1, "stop": 4, "exclamation": 1, "paragraph": 1}


def _ends(phrase: str) -> str:
    """Return the classes of a phrase's last word, one per key of `ENDS`, with weights."""
    return " ".join(f"{phrase}_{end}:{weight}" for end, weight in ENDS.items())


OBJECT = f"object_determiner:40 object_owner:8 count:20 {_ends('name')}"
LAST_NOUN = f"object_adjective:12 {_ends('noun')}"


@dataclass(frozen=True)
class WordClass:
    """One class of the grammar."""

    vocabulary: str
    """Words and weights."""
    written: str
    """The token's pattern, with `word` or `Word` for the word; one white space ends it."""
    followers: str
    """Classes that may come next, and weights."""


def _last_words(phrase: str, vocabulary: str, written: str) -> dict[str, WordClass]:
    """Return the classes in which the last word of a phrase carries one of the marks of `ENDS`."""
    return {
        f"{phrase}_goes_on": WordClass(vocabulary, f"{written} ", "preposition"),
        f"{phrase}_comma": WordClass(vocabulary, f"{written}, ", "conjunction"),
        f"{phrase}_semicolon": WordClass(vocabulary, f"{written}; ", CLAUSE),
        f"{phrase}_stop": WordClass(vocabulary, f"{written}. ", SENTENCE),
        f"{phrase}_exclamation": WordClass(vocabulary, f"{written}! ", SENTENCE),
        f"{phrase}_paragraph": WordClass(vocabulary, f"{written}.\n", SENTENCE),
    }


GRAMMAR: Mapping[str, WordClass] = {
    "Determiner": WordClass(DETERMINERS, "Word ", SUBJECT),
    "determiner": WordClass(DETERMINERS, "word ", SUBJECT),
    "Owner": WordClass(NAMES, "Word's ", SUBJECT),
    "adjective": WordClass(ADJECTIVES, "word ", "noun"),
    "noun": WordClass(NOUNS, "word ", ACTION),
    "Name": WordClass(NAMES, "Word ", ACTION),
    "Pronoun": WordClass(PRONOUNS, "Word ", ACTION),
    "pronoun": WordClass(PRONOUNS, "word ", ACTION),
    "adverb": WordClass(ADVERBS, "word ", "verb:2 motion"),
    "verb": WordClass(VERBS, "word ", OBJECT),
    "motion": WordClass(MOTIONS, "word ", "preposition"),
    "preposition": WordClass(PREPOSITIONS, "word ", OBJECT),
    "conjunction": WordClass(CONJUNCTIONS, "word ", CLAUSE),
    "object_determiner": WordClass(DETERMINERS, "word ", LAST_NOUN),
    "object_owner": WordClass(NAMES, "Word's ", LAST_NOUN),
    "object_adjective": WordClass(ADJECTIVES, "word ", _ends("noun")),
    "count": WordClass(COUNTS, "word ", _ends("nouns")),
    **_last_words("noun", NOUNS, "word"),
    **_last_words("nouns", NOUNS, "words"),
    **_last_words("name", NAMES, "Word"),
    "Date": WordClass(DATES, "Word ", "year"),
    "year": WordClass(YEARS, "word, ", CLAUSE),
    "Command": WordClass(COMMANDS, '"Word ', "spoken_determiner"),
    "spoken_determiner": WordClass(DETERMINERS, "word ", "spoken_adjective:2 spoken:3 shouted:2"),
    "spoken_adjective": WordClass(ADJECTIVES, "word ", "spoken:3 shouted:2"),
    "spoken": WordClass(NOUNS, 'word," ', "speech"),
    "shouted": WordClass(NOUNS, 'word!" ', "speech"),
    "speech": WordClass(SPEECH, "word ", "name_stop:2 name_paragraph"),
}


def parse_weights(notation: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read words and integer weights: `"the:9 no"` is `(("the", "no"), (9, 1))`."""
    pairs = [entry.partition(":") for entry in notation.split()]
    return tuple(word for word, _, _ in pairs), tuple(int(weight or 1) for _, _, weight in pairs)


def tokens(word_class: WordClass) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the strings that a class writes, and their weights."""
    words, weights = parse_weights(word_class.vocabulary)
    written = word_class.written
    return tuple(
        written.replace("word", word).replace("Word", word.capitalize()) for word in words
    ), weights


def split_mix(seed: int) -> Iterator[int]:
    """Yield uniform 64-bit integers: SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    mask = (1 << 64) - 1
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        mixed = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        yield mixed ^ (mixed >> 31)


def _drawer(
    choices: tuple[str, ...], weights: tuple[int, ...], random: Iterator[int]
) -> Callable[[], str]:
    """Return a function that draws one of `choices`; probabilities are right to 2**-64."""
    cumulative = tuple(accumulate(weights))
    total = cumulative[-1]
    return lambda: choices[bisect_right(cumulative, next(random) * total >> 64)]


def walk(seed: int) -> Iterator[tuple[str, str]]:
    """Yield class and string of one state after the other, from a first sentence on, for ever."""
    random = split_mix(seed)
    write = {name: _drawer(*tokens(c), random) for name, c in GRAMMAR.items()}
    follow = {name: _drawer(*parse_weights(c.followers), random) for name, c in GRAMMAR.items()}
    name = _drawer(*parse_weights(SENTENCE), random)()
    while True:
        yield name, write[name]()
        name = follow[name]()


@functools.cache
def text() -> str:
    """Return the corpus: whole paragraphs, at least `MIN_CHARACTERS` characters, about 0.1 s."""
    written, length = [], 0
    for _, token in walk(SEED):
        written.append(token)
        length += len(token)
        if length >= MIN_CHARACTERS and token.endswith("\n"):
            break
    return "".join(written)
