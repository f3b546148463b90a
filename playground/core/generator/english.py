"""English phrases of the generator."""

from playground.core import phrases
from playground.core.generator.language import Language
from playground.core.phrases import TEST, TRAIN

_CHAT = {
    TRAIN: [
        ("My name is {name}.", "Nice to meet you, {name}!"),
        ("I come from {city}.", "How nice! {city} must be worth a visit."),
        ("Tomorrow I am off to {city} with {name}.", "Have a good trip, both of you!"),
    ],
    TEST: [
        ("People call me {name}.", "Hello {name}! What can I do for you?"),
        ("Have you ever been to {city}?", "No, I am a language model and have never been anywhere."),
    ],
}


def _any_tools(pair: tuple[str, str]) -> bool:
    """Talk that holds whatever the tools are: the demo's speaks of its own."""
    return not any(word in " ".join(pair).lower() for word in ("{", "weather", "calculat", "arithmetic", "tool"))


ENGLISH = Language(
    code="en",
    decimal=".",
    last="and",
    asked={
        TRAIN: [
            "Please {task}: {slots}.",
            "Can you {task}? {slots}.",
            "I need you to {task}, {slots}.",
            "{task}, {slots}",
            "{task}: {slots}.",
            "I want to {task}: {slots}.",
            "Hi, could you {task}? It is {slots}.",
            "Help me {task}, {slots}.",
            "Would you {task} for me, {slots}?",
            "{task} please, {slots}",
        ],
        TEST: [
            "I would like to {task}, {slots}.",
            "Kindly {task} with this: {slots}.",
            "Is it possible to {task}? Here is what I have: {slots}.",
            "My request: {task}. Details: {slots}.",
            "Let us {task}; {slots}.",
            "Go ahead and {task}, {slots}.",
        ],
    },
    bare={
        TRAIN: ["Please {task}.", "Can you {task}?", "{task}", "I need you to {task}.", "Help me {task}."],
        TEST: ["I would like to {task}.", "Is it possible to {task}?", "Go ahead and {task}."],
    },
    noun={
        TRAIN: ["Give me this: {task}, {slots}.", "I need {task}, {slots}.", "{task}? {slots}."],
        TEST: ["What can you tell me about {task}, {slots}?", "I am after {task}: {slots}."],
    },
    next={TRAIN: [" Also: ", " And then: "], TEST: [" Besides that: ", " After that: "]},
    labelled=("{label} {v}", "{label}: {v}", "{label} = {v}", "the {label} is {v}"),
    said={
        "city": ("in {v}", "for {v}"),
        "country": ("in {v}", "for {v}"),
        "date": ("on {v}", "for {v}"),
        "time": ("at {v}",),
        "person": ("for {v}", "it is about {v}"),
        "topic": ("about {v}", "the topic is {v}"),
        "choice": ("{v}", "{v} please"),
        "unit": ("in {v}",),
        "currency": ("in {v}",),
        "language": ("in {v}",),
        "list": ("namely {v}",),
    },
    roles={"from": "from", "to": "to"},
    between=("is", "are", "of", "at"),
    yes=("with {label}",),
    no=("without {label}",),
    months=(
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    dates=("{month} {day}, {year}", "{day} {month} {year}"),
    numbers={
        **{2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"},
        **{8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"},
    },
    labels={},
    units={
        "celsius": ("Celsius", "degrees Celsius", "°C"),
        "fahrenheit": ("Fahrenheit", "degrees Fahrenheit", "°F"),
        "kelvin": ("Kelvin",),
        "km": ("kilometers", "km"),
        "m": ("meters",),
        "cm": ("centimeters", "cm"),
        "miles": ("miles",),
        "feet": ("feet",),
        "kg": ("kilograms", "kg"),
        "lb": ("pounds",),
        "liters": ("liters",),
        "usd": ("US dollars", "USD"),
        "eur": ("euros", "EUR"),
        "gbp": ("British pounds", "GBP"),
        "jpy": ("Japanese yen", "JPY"),
        "chf": ("Swiss francs", "CHF"),
        "inr": ("Indian rupees", "INR"),
    },
    wants={
        TRAIN: ["Which {label} do you mean?", "I need the {label} for that. Which one is it?"],
        TEST: ["What is the {label}?", "To do that I have to know the {label}."],
    },
    gives={TRAIN: ["{v}", "{v}, please", "it is {v}"], TEST: ["{v}.", "I mean {v}", "make it {v}"]},
    refuses={
        TRAIN: ["None of my tools can do that.", "I have no tool for that, so I would only be guessing."],
        TEST: ["That is beyond the tools that I have.", "For that I would need a tool that I was not given."],
    },
    chat={split: [*filter(_any_tools, phrases.CHAT[split]), *_CHAT[split]] for split in (TRAIN, TEST)},
    bare_noun={TRAIN: ["Tell me this: {task}.", "{task}?"], TEST: ["I would like to know this: {task}."]},
)
