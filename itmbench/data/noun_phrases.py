"""Noun phrases of English captions, found by word lists and endings instead of a model.

A phrase starts at a determiner or an attribute (or after "of") and extends to the next function word, verb or
punctuation mark; its last word is the noun. Captions are short main clauses in the present tense, so these rules find
most phrases; they miss some and cut a few wrongly.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Only words of the same class are swapped. Words joined by a slash are synonyms, so swapping them changes nothing.
_CLASSES = {
    "colour": """red/scarlet/crimson orange yellow/golden/gold green blue/azure purple/violet pink white black gray/grey
    silver brown tan/beige/khaki maroon/burgundy teal/turquoise navy cyan magenta blond/blonde
    colorful/colourful/multicolored/multi-colored""",
    "number": "two three four five six seven eight nine ten eleven twelve",
    "pattern": """plain/smooth striped checked/checkered/chequered/plaid dotted/spotted speckled/grainy wavy/rippled
    floral flowered""",
    "quality": """small/little/tiny/mini/smaller large/big/huge/giant/enormous/massive/oversized/larger/bigger
    tall short long thin/skinny/slim fat/chubby/overweight/heavyset thick wide/broad narrow deep shallow flat heavy
    dark light bright young/younger/teenage old/older/elderly/aged middle-aged new/modern
    wooden/wood metal plastic stone brick concrete leather denim silk cardboard inflatable
    wet dry muddy/dirty clean snowy/snow-covered icy/frozen sandy grassy rocky leafy/wooded dusty sunny rainy cloudy
    bare empty/vacant crowded/busy broken steep soft bald bearded shirtless barefoot shaggy/furry/fluffy/hairy curly
    blond-haired/blonde-haired dark-haired red-haired gray-haired long-haired happy/cheerful sad
    beautiful/pretty/attractive ugly strange/odd/funny/unusual fancy/elegant outdoor indoor urban rural""",
}
ATTRIBUTES = {
    word: (kind, group) for kind, groups in _CLASSES.items() for group in groups.split() for word in group.split("/")
}
"""Class and synonyms of every attribute."""


def word_list(text: str) -> frozenset[str]:
    """Split a text at blanks."""
    return frozenset(text.split())


# Articles precede a noun; the other determiners may also stand alone as pronouns.
_ARTICLES = word_list("a an the his its their my our your every no")
_PRONOMINAL = word_list(
    "her this these those some any several many few each another other others both all most various one"
)
_DETERMINERS = _ARTICLES | _PRONOMINAL
_ONE = word_list("a an one another each every this")

_PREPOSITIONS_AND_PLACES = word_list(
    """about above across after against ahead along alongside amid amidst among amongst around as aside at atop away
    back backwards before behind below beneath beside besides between beyond by despite down downhill during except
    for forward from home in indoors inside into like near nearby next of off on onto opposite out outdoors outside over
    past per plus through throughout to together toward towards under underneath underwater until up uphill upon upright
    upside versus via vs with within without there here"""
)
_CONJUNCTIONS_AND_PRONOUNS = word_list(
    """although and because but either if nor or so than that then though unless when where whereas which while who
    whom whose how what why he she it they we you i him them us me himself herself itself themselves someone somebody
    something anyone anything everyone everybody everything nobody nothing hers theirs"""
)
_AUXILIARIES_AND_PARTICLES = word_list(
    """is are was were be been being am has have had having do does did doing can could may might must shall should
    will would not just also very too only almost still already again apart full midair mid-air"""
)
_FUNCTION = _PREPOSITIONS_AND_PLACES | _CONJUNCTIONS_AND_PRONOUNS | _AUXILIARIES_AND_PARTICLES

_VERBS = word_list(
    """act adjust aim appear approach argue ask attack attempt balance bark bathe battle beat begin bend bike bite blow
    board bounce bow bring brush build bury buy call carry carve cast catch celebrate chase chat check cheer chew clean
    climb clap come compete concentrate consult continue cook cover crawl cross crouch cry cuddle cut cycle dance
    demonstrate dig dip discuss display dive drag draw dress drink drive drop eat emerge enjoy enter examine exit
    explore extend face fall feed fight fish fix flip float fly follow frolic gather gaze get give glide go grab grasp
    greet grill grin grind grip guide hang head help hike hit hold hop hug hunt inspect jog jump keep kick kiss kneel
    know laugh lay lead lean leap leave lick lie lift listen load look make march marvel meet mix move nap nibble
    observe offer operate overlook paddle paint pass pat pause pedal peek peer perform pet photograph pick play point
    poke pose pour practice prepare present pull push put race raise reach read receive relax repair rest return ride
    roll row run sail say scale see seem sell serve set sew shake share shop shoot show sing sip sit skate ski
    skateboard slam sled sleep slide slip smell smile smoke sniff snowboard speak spin splash spray stand stare start
    stick stop stretch stroll study surf surround swim swing take talk taste tend throw toss touch trail train travel
    trot try tug turn type use view visit wade wait wake walk wander wash watch wave wear work wrestle write yell"""
)
_PASTS = word_list(
    """ate began bent blew bought brought built came caught drank drew drove fell flew fought gave got held hung kept
    knelt laid leapt led lay lit made met ran rode sang sat saw shot showed slept slid spoke spun stood struck swam
    swung threw took tore went woke won wore wrote"""
)


def _third_person(verb: str) -> str:
    if re.search(r"(s|x|z|ch|sh|[^aeiou]o)$", verb):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"


_FINITE = _PASTS | {_third_person(verb) for verb in _VERBS}
_VERB_FORMS = _FINITE | _VERBS

_IRREGULAR_PLURALS = word_list("people children feet teeth mice geese oxen police cattle")
_SINGULARS_IN_S = word_list("lens canvas gas christmas atlas sports arts rights")
_SIDES = word_list("left right top bottom")
_NO_MODIFIERS = word_list(
    """building ceiling clothing railing morning evening wedding painting crossing landing opening earring stocking
    lightning awning pudding icing topping siding sibling duckling gathering meeting drawing carving setting viking
    seed weed feed speed breed steed reed hundred moped
    family belly lily jelly assembly butterfly dragonfly fly bully gully ally"""
)
_LINKS = word_list("'s covered filled lined shaped sized colored coloured haired themed wheeled patterned")
"""Words that join a noun to the next one: "a man 's hat", "a snow covered hill"."""


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase as positions in a list of words."""

    start: int  # position of the first word
    attributes: tuple[int, ...]  # positions of the words in ``ATTRIBUTES``
    noun: int  # position of the noun, which is the last word

    @property
    def places(self) -> range:
        """Positions of all its words."""
        return range(self.start, self.noun + 1)


def noun_phrases(words: Sequence[str], gaps: Sequence[str]) -> list[NounPhrase]:
    """Find the noun phrases of a sentence, in order and without overlap.

    Args:
        words: the words in lower case.
        gaps: the text before each word: blanks, or punctuation with blanks.
    """
    phrases, at = [], 0
    while at < len(words):
        if words[at] in _DETERMINERS or words[at] in ATTRIBUTES or (at and words[at - 1] == "of" and _joined(gaps, at)):
            phrase, at = _phrase(words, gaps, at)
            phrases += [] if phrase is None else [phrase]
        else:
            at += 1
    return phrases


def is_plural(noun: str) -> bool:
    """Whether a noun in lower case looks like a plural."""
    return noun in _IRREGULAR_PLURALS or (
        noun.endswith(("s", "men")) and not noun.endswith(("ss", "us", "is")) and noun not in _SINGULARS_IN_S
    )


def _phrase(words: Sequence[str], gaps: Sequence[str], start: int) -> tuple[NounPhrase | None, int]:
    """Return the phrase that starts at a word, or None if no noun follows, and the position to continue from."""
    at = start
    while at < len(words) and words[at] in _DETERMINERS and (at == start or _joined(gaps, at)):
        at += 1
    determiners = set(words[start:at])
    joint = start > 0 and words[start - 1] == "and"
    attributes: list[int] = []
    noun: int | None = None
    while at < len(words):
        word, after = words[at], words[at + 1] if at + 1 < len(words) and _joined(gaps, at + 1) else ""
        after_attribute = noun is None and attributes and attributes[-1] == at - 1
        if at > start and not _joined(gaps, at) and not (after_attribute and word in ATTRIBUTES):
            break
        if word in ATTRIBUTES and noun is None:
            attributes.append(at)
        elif after_attribute and word in ("and", "or") and after in ATTRIBUTES:
            pass  # "a black and white dog"
        elif (word in _LINKS or word.endswith("'s")) and after and after not in _FUNCTION | _DETERMINERS:
            noun = None  # the noun is still to come
        elif word in _FUNCTION | _DETERMINERS or (noun is None and _stands_alone(determiners, word)):
            break
        elif noun is not None and (
            _is_finite(word, words[noun], determiners) or (word in _VERBS and (joint or after in _DETERMINERS))
        ):
            break  # "a man and a woman hug a child"
        elif not _is_modifier(word):
            noun = at
        at += 1
    return (None if noun is None else NounPhrase(start, tuple(attributes), noun)), max(at, start + 1)


def _stands_alone(determiners: set[str], word: str) -> bool:
    """Whether a word is the verb of a determiner that is a pronoun: "another waits", but not "a swing"."""
    return word in _VERB_FORMS and not determiners & _ARTICLES


def _is_finite(word: str, noun: str, determiners: set[str]) -> bool:
    """Whether a word after a noun is its verb or a participle, not the second half of a compound."""
    snarls = bool(determiners & _ONE) and is_plural(word)  # "a dog snarls"
    return word in _FINITE or _is_modifier(word) or is_plural(noun) or snarls


def _is_modifier(word: str) -> bool:
    """Whether a word only modifies a noun: participles, adverbs, possessives, sides."""
    if word in _SIDES or word.endswith(("'s", "s'")):
        return True
    return word not in _NO_MODIFIERS and bool(re.search(r"[aeiou].*(ing|ed|ly)$", word))


def _joined(gaps: Sequence[str], at: int) -> bool:
    """Whether no punctuation precedes a word."""
    return not gaps[at].strip()
