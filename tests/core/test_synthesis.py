import json
import re
import time
from datetime import date

import pytest

from playground.core import phrases, place_names, scoring, synthesis, tools
from playground.core.tool_formats import Call
from playground.core.tools import ToolError, calculator, weather
from playground.errors import PlaygroundError


@pytest.fixture(scope="module")
def rows():
    return {split: synthesis.tool_calls(1500, 3, split) for split in synthesis.SPLITS}


def said(rows, role="user"):
    return [message["content"] for row in rows for message in row["messages"] if message["role"] == role]


def called(rows):
    return [
        call["function"]
        for row in rows
        for message in row["messages"]
        for call in message.get("tool_calls", [])
    ]  # fmt: skip


def strings(table) -> set[str]:
    """Every string in nested lists, tuples and dicts."""
    if isinstance(table, str):
        return {table}
    items = table.values() if isinstance(table, dict) else table
    return set().union(*(strings(item) for item in items))


def test_the_same_seed_gives_the_same_rows():
    assert synthesis.tool_calls(50, 1) == synthesis.tool_calls(50, 1)
    assert synthesis.tool_calls(50, 1) != synthesis.tool_calls(50, 2)
    assert synthesis.tool_calls(50, 1) != synthesis.tool_calls(50, 1, "test")


@pytest.mark.parametrize("n, split, sentence", [(0, "train", "at least 1"), (5, "dev", "train, test")])
def test_what_cannot_be_made_is_refused(n, split, sentence):
    with pytest.raises(PlaygroundError, match=sentence):
        synthesis.tool_calls(n, 0, split)


@pytest.fixture(scope="module")
def many():
    """(ten thousand rows, the seconds they took)"""
    started = time.monotonic()
    return synthesis.tool_calls(10_000, 0), time.monotonic() - started


def test_ten_thousand_different_rows_in_seconds(many):
    rows, seconds = many
    assert seconds < 30
    assert len(rows) == 10_000
    questions = [json.dumps([m["content"] for m in row["messages"] if m["role"] == "user"]) for row in rows]
    assert len(set(questions)) == 10_000


def test_no_phrase_is_in_both_splits():
    found = [*vars(phrases).values(), *vars(place_names).values()]
    tables = [t for t in found if isinstance(t, dict) and set(t) == set(synthesis.SPLITS)]
    assert len(tables) >= 13
    answers = {answer for pairs in phrases.CHAT.values() for _, answer in pairs}
    answers |= {answer for pairs in phrases.AFTERWARDS.values() for _, answer in pairs}
    expressions = {e for t in (phrases.SPOKEN, phrases.SINGLE) for pairs in t.values() for _, e in pairs}
    for table in tables:
        assert strings(table["train"]) & strings(table["test"]) <= answers | expressions
        assert not [text for text in strings(table) - expressions if re.search(r"\d", re.sub(r"{\w+}", "", text))]


def test_no_city_is_in_both_splits(rows):
    cities = synthesis.city_split(weather.load_cities())
    assert len(cities["train"]) >= 150
    assert len(cities["test"]) >= 40
    names = {
        split: {weather.plain(name) for city in group for name in (city.name, *city.aliases)}
        for split, group in cities.items()
    }
    assert not names["train"] & names["test"]
    for split, other in (("train", "test"), ("test", "train")):
        # a country may be called like a city of it, and San Salvador is not Salvador
        own = " ".join(f"{city.name} {city.country}" for city in cities[split])
        elsewhere = {name for city in cities[other] for name in (city.name, *city.aliases) if name not in own}
        there = re.compile(r"\b(" + "|".join(map(re.escape, elsewhere)) + r")\b")
        assert not [text for text in said(rows[split]) + said(rows[split], "assistant") if there.search(text)]


def test_no_number_is_in_both_splits(rows):
    numbers = {split: {n for text in said(rows[split]) for n in synthesis.numbers(text)} for split in rows}
    assert len(numbers["train"]) > 300
    assert not numbers["train"] & numbers["test"]
    assert {synthesis.number_split(n) for n in numbers["train"]} == {"train"}
    assert {synthesis.number_split(n) for n in numbers["test"]} == {"test"}


def test_shares(rows):
    for split in rows:
        kinds = [scoring.kind(due) for _, due in synthesis.questions(rows[split])]
        share = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
        assert 0.3 < share["calculator"] < 0.45
        assert 0.23 < share["get_weather"] < 0.36
        low, high = {"train": (0.08, 0.15), "test": (0.03, 0.12)}[split]
        assert low < share["several calls"] < high
        assert 0.22 < share["no call"] < 0.32
        continued = [row for row in rows[split] if row["messages"][-1]["role"] == "assistant" and said([row], "tool")]
        with_tools = [row for row in rows[split] if called([row])]
        low, high = {"train": (0.11, 0.2), "test": (0.25, 0.4)}[split]
        assert low < len(continued) / len(with_tools) < high
        both = [row for row in continued if [m["role"] for m in row["messages"][-3:-1]] == ["tool", "tool"]]
        assert bool(both) == (split == "test")


def test_known_places_are_unknown_to_the_tool_and_in_no_test():
    tool = weather.make(None, weather.load_cities(), lambda: date(2025, 1, 1))
    known = place_names.known()
    for name in known:
        with pytest.raises(ToolError, match=name) as caught:
            tool.run(city=name)
        assert "did you mean" not in str(caught.value)
    assert len(set(known)) == len(known) > 300
    cities = synthesis.city_split(weather.load_cities())["test"]
    assert not set(known) & {name for city in cities for name in (city.name, *city.aliases)}


def test_chat_is_varied():
    for split, least in (("train", 60), ("test", 60)):
        assert len({line for line, _ in phrases.CHAT[split]}) >= least


@pytest.mark.parametrize("split", synthesis.SPLITS)
def test_every_call_is_valid_and_follows_from_its_question(rows, split):
    for row in rows[split]:
        asked = ""
        for message in row["messages"]:
            asked = message["content"] if message["role"] == "user" else asked
            for call in message.get("tool_calls", []):
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                assert tools.check(Call(name, arguments), row["tools"]) is None
                if name == "get_weather":
                    assert arguments["city"].lower() in asked.lower()
                    assert arguments["city"][0].isupper()
                    continue
                fixed = {"100", "2"} | {str(factor) for _, _, factor in phrases.UNITS}
                used = synthesis.numbers(arguments["expression"])
                assert set(used) <= set(synthesis.numbers(asked)) | fixed
                assert set(synthesis.numbers(asked)) <= set(used) or len(message["tool_calls"]) > 1
                assert arguments["expression"] == canonical(arguments["expression"])


def canonical(expression: str) -> str:
    """One blank around every binary operator, none elsewhere."""
    tight = expression.replace(" ", "")
    return re.sub(r"(?<=[\d)])(\*\*|[-+*/])", r" \1 ", tight)


@pytest.mark.parametrize("split", synthesis.SPLITS)
def test_spoken_answers_are_true(rows, split):
    checked = {"calculator": 0, "offline": 0, "live": 0, "error": 0}
    for row in rows[split]:
        results = []
        for before, message in zip([{}, *row["messages"]], row["messages"], strict=False):
            if message["role"] == "tool":
                call = calls_before(row, message)
                result = json.loads(message["content"])
                results.append(result)
                if message["name"] == "calculator":
                    assert result == truth(calculator.run, call)
                elif "error" in result:
                    assert "no city" in result["error"]
                checked["error" if "error" in result else kind_of(message["name"], result)] += 1
            elif message["role"] == "assistant" and before.get("role") == "tool":
                for result in results:
                    for value in [result["error"]] if "error" in result else numbers_of(result):
                        assert str(value) in message["content"]
                results = []
    assert all(checked.values()), checked


def calls_before(row, message):
    """The arguments of the call that a tool message answers."""
    at = next(i for i, m in enumerate(row["messages"]) if m is message)
    first = at
    while row["messages"][first - 1]["role"] == "tool":
        first -= 1
    return row["messages"][first - 1]["tool_calls"][at - first]["function"]["arguments"]


def truth(run, arguments):
    try:
        return run(**arguments)
    except ToolError as error:
        return {"error": str(error)}


def kind_of(name, result):
    return name if name == "calculator" else "live" if "conditions" in result else "offline"


def numbers_of(result):
    return [result[key] for key in ("result", "city", "temperature_c") if key in result]


def test_every_row_has_the_same_tools_and_starts_with_the_user(rows):
    for group in rows.values():
        assert {json.dumps(row["tools"]) for row in group} == {json.dumps(tools.schemas())}
        assert {row["messages"][0]["role"] for row in group} == {"user"}


def test_how_people_really_ask_is_there(many):
    rows = many[0][:8000]
    shapes = {re.sub(r"\d+(\.\d+)?", "N", text) for text in said(rows)}
    assert {
        "What is N * N?",
        "N*N",
        "N * N",
        "what is N+N",
        "hello",
        "who are you",
        "tell me a joke",
        "thanks",
    } <= shapes
    texts = set(said(rows))
    assert any(text.startswith("What's the weather in ") for text in texts)
    assert any(text.startswith("how warm is it in ") and text.endswith("right now") for text in texts)
    expressions = {call["arguments"]["expression"] for call in called(rows) if call["name"] == "calculator"}
    for sign in ("+", "-", "*", "/", "**", "sqrt", "(", "/ 100 *"):
        assert any(sign in expression for expression in expressions)
    assert any(len(number) == 4 for e in expressions for number in synthesis.numbers(e))
    assert any("." in e for e in expressions)


def test_questions_stop_before_the_answer():
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "1 + 1"}}}
    row = {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "calculator", "content": '{"result": 2}'},
            {"role": "assistant", "content": "1 + 1 = 2."},
        ],
        "tools": [],
    }
    assert synthesis.questions([row]) == [(row["messages"][:3], [call["function"]])]
    assert synthesis.questions([{**row, "messages": row["messages"][:2]}]) == [(row["messages"][:1], [])]
