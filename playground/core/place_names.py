"""Names of places that the weather tool does not know, for the synthetic tool-calling conversations.

They teach to copy a name, letter by letter, instead of thinking of a famous one.
"""

import json

from playground.config import ASSETS
from playground.core.phrases import TEST, TRAIN

# Places of stories, which are on no map: the tool's error comes back.
STORIES = {
    TRAIN: ["Mordor", "Gotham", "Narnia", "Wakanda", "Hogsmeade"],
    TEST: ["Rivendell", "Springfield Heights", "El Dorado"],
}

# Countries and regions, and names that towns have from people; none is a city of the tool's table or like one. In the
# running text such a name is mostly one token, and after a quotation mark it is several that share nothing with it, so
# the model has to know how it is spelled: "Copenhagen" became "Denmark".
KNOWN = ASSETS / "data" / "place_names.json"

# Of syllables: names that nobody has seen.
BEGINNINGS = [
    "Ba",
    "Bel",
    "Cor",
    "Dar",
    "Fen",
    "Gal",
    "Hol",
    "Jas",
    "Kar",
    "Lun",
    "Mar",
    "Nor",
    "Pel",
    "Quin",
    "Ros",
    "Sel",
    "Tav",
    "Ul",
    "Ver",
    "Wes",
    "Yar",
    "Zan",
]
MIDDLES = ["", "a", "e", "i", "o", "ba", "da", "len", "li", "mi", "no", "ra", "ri", "sa", "so", "ta", "va"]
ENDINGS = [
    "bury",
    "ca",
    "dale",
    "don",
    "field",
    "ga",
    "grad",
    "ham",
    "la",
    "mont",
    "na",
    "nia",
    "polis",
    "ra",
    "shire",
    "stad",
    "ton",
    "via",
    "wick",
    "yama",
]
FIRST_WORDS = ["New", "Old", "Port", "San", "Santa", "Fort", "Lake", "Saint", "Upper", "Puerto"]


def known() -> list[str]:
    return json.loads(KNOWN.read_text(encoding="utf-8"))
