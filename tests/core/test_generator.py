"""Rows for any schemas: every argument is read from its question, phrases are of one split, formats hold them."""

import json
import random
from pathlib import Path

import pytest

from playground.core import datasets, tool_formats
from playground.core.generator import layouts, proof, readings, schemas, slots, values, writer
from playground.core.generator.slots import slot_of
from playground.core.phrases import TEST, TRAIN
from playground.errors import PlaygroundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "bfcl" / "BFCL_v4_simple_python.json"
TOOLS = [
    {
        "name": "book_flight",
        "description": "Books a flight from one city to another. Fares may change.",
        "parameters": {
            "type": "object",
            "properties": {
                "from_city": {"type": "string"},
                "to_city": {"type": "string"},
                "departure_date": {"type": "string", "description": "DD/MM/YYYY"},
                "passengers": {"type": "integer", "minimum": 1, "maximum": 9},
                "cabin_class": {"type": "string", "enum": ["economy", "first_class"]},
                "include_meal": {"type": "boolean"},
            },
            "required": ["from_city", "to_city", "departure_date"],
        },
        "phrases": {"de": "einen Flug buchen"},
    },
    {
        "type": "function",
        "function": {
            "name": "convert",
            "description": "Convert an amount between units",
            "parameters": {
                "type": "dict",
                "properties": {
                    "value": {"type": "float"},
                    "from_unit": {"type": "string", "enum": ["km", "kilometers", "miles", "celsius"]},
                    "to_unit": {"type": "string", "enum": ["km", "miles", "celsius"]},
                },
                "required": ["value", "from_unit", "to_unit"],
            },
        },
    },
    {
        "name": "remind",
        "description": "The reminders of a person",
        "inputSchema": {
            "type": "object",
            "properties": {
                "person": {"type": "string"},
                "at_time": {"type": "string", "format": "time"},
                "tags": {"type": "array", "items": {"type": "string", "enum": ["home", "work", "school"]}},
                "email": {"type": "string"},
            },
            "required": ["person", "tags"],
        },
    },
    {"name": "weather_now", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
]
ALL = ("en", "de", "fr", "es")


@pytest.fixture(scope="module")
def specs():
    found, left_out = schemas.specs(TOOLS)
    assert left_out == []
    return found


@pytest.fixture(scope="module")
def made(specs):
    return writer.rows(specs, 800, 0, ALL)


def said(row):
    return "\n".join(m["content"] for m in row.messages if m["role"] == "user")


def test_the_same_seed_gives_the_same_rows_and_all_differ(specs, made):
    assert writer.rows(specs, 800, 0, ALL).rows == made.rows
    assert writer.rows(specs, 50, 1, ALL).rows != writer.rows(specs, 50, 0, ALL).rows
    questions = [said(row).casefold() for row in made.rows]
    assert len(set(questions)) == len(questions) == 800
    assert {row.kind for row in made.rows} == set(writer.SHARES)
    assert {row.language for row in made.rows} == set(ALL)


def test_every_argument_is_read_from_its_question(specs, made):
    by_name = {spec.name: spec for spec in specs}
    proven = 0
    for row in made.rows:
        language = writer.LANGUAGES[row.language]
        text = said(row).replace("\n", " ")
        for part, call in zip(proof.parts(text, language, len(row.calls)), row.calls, strict=bool(row.calls)):
            spec = by_name[call["name"]]
            read = readings.readings
            for slot in spec.slots:
                if slot.name in call["arguments"]:
                    name = slots.label(slot, language)
                    found = [one.value for one in read(slot, part, language, name)]
                    assert call["arguments"][slot.name] in found, (row, slot.name)
            proven += len(call["arguments"])
        assert proof.fits(row.calls, row.tools)
        offered = [tool["function"]["name"] for tool in row.tools]
        assert len(offered) == len(set(offered)) > 0
        assert {call["name"] for call in row.calls} <= set(offered)
    asked_back = sum(row.kind == "ask back" for row in made.rows)
    assert proven <= made.proven <= proven + 5 * asked_back


def test_the_proof_finds_a_call_that_was_changed(specs, made):
    """Another value, two values changed over, an argument that nobody asked for: none goes through."""
    by_name = {spec.name: spec for spec in specs}
    rng, changed = random.Random(0), 0
    for row in made.rows:
        if row.kind != "one call":
            continue
        language, arguments, spec = (
            writer.LANGUAGES[row.language],
            row.calls[0]["arguments"],
            by_name[row.calls[0]["name"]],
        )
        names = {slot.name: slots.label(slot, language) for slot in spec.slots}
        assert proof.underived(said(row), arguments, spec.slots, names, language) == []
        for slot in spec.slots:
            other = values.draw(slot, language, TRAIN, rng)
            wrong = {**arguments, slot.name: other}
            if arguments.get(slot.name) == other or (slot.kind == "truth" and slot.name in arguments and other is None):
                continue
            assert proof.underived(said(row), wrong, spec.slots, names, language), (said(row), wrong)
            changed += 1
        if {"from_city", "to_city"} <= arguments.keys():
            swapped = {**arguments, "from_city": arguments["to_city"], "to_city": arguments["from_city"]}
            assert proof.underived(said(row), swapped, spec.slots, names, language)
    assert changed > 300


def test_asking_back_is_for_what_is_missing(made):
    for row in made.rows:
        if row.kind == "ask back":
            assert row.calls == []
            assert row.messages[-1]["role"] == "assistant"
            assert "tool_calls" not in row.messages[-1]
        if row.kind == "answered":
            assert [m["role"] for m in row.messages] == ["user", "assistant", "user", "assistant"]
            assert row.messages[-1]["tool_calls"][0]["function"] == row.calls[0]


def test_a_question_for_a_tool_that_is_not_there(made):
    rows = [row for row in made.rows if row.kind == "no tool"]
    assert len(rows) > 40
    assert all(row.calls == [] and "tool_calls" not in row.messages[-1] for row in rows)


def test_training_and_testing_share_no_phrase(specs, made):
    for language in writer.LANGUAGES.values():
        for table in ("asked", "bare", "noun", "bare_noun", "next", "wants", "gives", "refuses"):
            both = getattr(language, table) or language.bare
            assert not set(both[TRAIN]) & set(both[TEST]), (language.code, table)
            assert not any(character.isdigit() for phrase in both[TRAIN] + both[TEST] for character in phrase)
        assert not {q for q, _ in language.chat[TRAIN]} & {q for q, _ in language.chat[TEST]}
    held_out = writer.rows(specs, 600, 0, ALL, TEST)
    assert not {said(row).casefold() for row in made.rows} & {said(row).casefold() for row in held_out.rows}


@pytest.mark.parametrize("layout", [layouts.PAIRS, *tool_formats.FORMATS])
def test_rows_in_every_format_are_read_again(made, layout, tmp_path):
    lines = list(layouts.lines(made.rows, layout))
    with_calls = [row for row in made.rows if row.calls and (layout != layouts.PAIRS or row.kind != "answered")]
    assert len(lines) == (len(with_calls) if layout == layouts.PAIRS else len(made.rows))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines[:40]))
    data = datasets.load(str(path))
    assert (len(data.conversations), data.bad) == (40, 0)
    if layout == layouts.PAIRS:
        calls = [[c["function"] for c in talk.messages[-1]["tool_calls"]] for talk in data.conversations]
        assert calls == [row.calls for row in with_calls[:40]]
        return
    format = tool_formats.named(layout)
    for line, row in zip(lines, made.rows, strict=True):
        parsed = format.parse(line["messages"][-1]["content"], tools=row.tools)
        assert [{"name": c.name, "arguments": c.arguments} for c in parsed.calls] == row.calls


def test_one_tool_alone_has_this_apps_beside_it():
    specs, _ = schemas.specs(TOOLS[:1])
    made = writer.rows(specs, 200)
    assert {call["name"] for row in made.rows for call in row.calls} == {"book_flight"}
    assert any(len(row.tools) > 2 for row in made.rows)
    assert any(row.kind == "no tool" for row in made.rows)


def test_a_phrase_of_the_schema_is_used_in_its_language(specs):
    made = writer.rows(specs[:1], 30, languages=("de",))
    assert any("inen Flug buchen" in said(row) for row in made.rows)


@pytest.mark.parametrize(
    "name, schema, kind",
    [
        ("departure_date", {"type": "string"}, "date"),
        ("startLocation", {"type": "string"}, "city"),
        ("artist_name", {"type": "string"}, "person"),
        ("hotel_name", {"type": "string"}, "topic"),
        ("to_currency", {"type": "string"}, "currency"),
        ("n", {"type": ["integer", "null"]}, "integer"),
        ("tags", {"type": "array", "items": {"type": "number"}}, "list"),
        ("flag", {"type": "boolean"}, "truth"),
        ("zip", {"type": "string", "pattern": "^[0-9]{5}$"}, None),
        ("where", {"type": "object"}, None),
        ("rows", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, None),
    ],
)
def test_what_a_parameter_stands_for(name, schema, kind):
    slot = slot_of(name, schema)
    assert (slot.kind if slot else None) == kind


@pytest.mark.parametrize(
    "code, text, kind, found",
    [
        ("en", "It is 2.5 of 3, AB-1234 at 14:30 on 2025-03-05, and twelve.", "number", [2.5, 3, 12]),
        ("de", "Es sind 2,5 von 3, und zwölf.", "number", [2.5, 3, 12]),
        ("en", "minus -5 and 1,000", "number", [-5]),
        ("en", "March 5, 2025 or 5 March 2025 or 2025-02-30", "date", ["2025-03-05", "2025-03-05"]),
        ("de", "am 5. März 2025", "date", ["2025-03-05"]),
        ("es", "el 5 de marzo de 2025", "date", ["2025-03-05"]),
    ],
)
def test_what_is_read_in_a_text(code, text, kind, found):
    slot = slot_of("date" if kind == "date" else "x", {"type": "string" if kind == "date" else kind})
    assert [one.value for one in readings.readings(slot, text, writer.LANGUAGES[code])] == found


def test_a_choice_that_could_mean_two_is_not_said():
    slot = slot_of("unit", {"type": "string", "enum": ["km", "kilometers", "miles"]})
    english = writer.LANGUAGES["en"]
    assert slots.surfaces(slot, "miles", english) == ["miles"]
    assert slots.surfaces(slot, "km", english) == []
    assert {values.draw(slot, english, TRAIN, random.Random(n)) for n in range(20)} == {"miles"}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"n": 0}, "n must be between 1 and"),
        ({"languages": ("en", "xx")}, "languages are en, de, fr, es, got 'xx'"),
        ({"languages": ()}, "got none"),
        ({"split": "dev"}, "split must be train or test"),
    ],
)
def test_what_cannot_be_made_is_said(specs, change, reason):
    with pytest.raises(PlaygroundError, match=reason):
        writer.rows(specs, **{"n": 5, **change})


def test_a_tool_without_values_gives_few_rows():
    specs, _ = schemas.specs([{"name": "now", "description": "Tell the time", "parameters": {}}])
    with pytest.raises(PlaygroundError, match="different rows; ask for fewer"):
        writer.rows(specs, 5000)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "is not JSON"),
        ("[]", "holds no tool"),
        ('[{"name": "two words"}]', "cannot be a tool's name"),
        ('[{"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#"}}}}]', "circle"),
        ('[{"name": "f", "parameters": {"properties": {"a": {"type": "object"}}, "required": ["a"]}}]', "argument 'a'"),
        ('[{"name": "f", "description": 3}]', "must be a text"),
        ("[3]", "must be an object"),
    ],
)
def test_a_file_without_a_usable_tool(tmp_path, text, reason):
    path = tmp_path / "tools.json"
    path.write_text(text)
    with pytest.raises(PlaygroundError, match=reason):
        schemas.read(path)


def test_real_schemas():
    if not SHARED.exists():
        pytest.skip("the shared leaderboard files are not on this machine")
    lines = SHARED.read_text(encoding="utf-8").splitlines()
    given = {f["name"]: f for line in lines for f in json.loads(line)["function"]}
    specs, left_out = schemas.specs(list(given.values()))
    assert len(left_out) < len(given) / 50
    made = writer.rows(specs, 400, 0, ALL)
    assert made.proven > 500
    assert {call["name"] for row in made.rows for call in row.calls} <= set(given)
