"""Sets of questions, verdicts on replies, tables and comparisons: on literals."""

import json
from pathlib import Path

import pytest

from playground.core import question_sets, scorecard, synthesis
from playground.core import tools as toolbox
from playground.core.messages import check_messages, from_row
from playground.core.question_sets import SETS, Question, built_in, choose, of_data, read
from playground.core.scorecard import FAILED, VALID, WORDS, Card, Column, Row
from playground.core.tool_formats import Call, hermes, react
from playground.errors import PlaygroundError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "bfcl"
SUM = {"name": "calculator", "arguments": {"expression": "23 * 47"}}
PARIS = {"name": "get_weather", "arguments": {"city": "Paris"}}
FUNCTION = {
    "name": "area",
    "description": "Area of a rectangle",
    "parameters": {
        "type": "dict",
        "properties": {"width": {"type": "float"}, "unit": {"type": "string"}},
        "required": ["width"],
    },
}
LEADERBOARD = {"id": "simple_python_7", "question": [[{"role": "user", "content": "Area?"}]], "function": [FUNCTION]}
POSSIBLE = {"id": "simple_python_7", "ground_truth": [{"area": {"width": [2.5], "unit": ["cm", "centimetres", ""]}}]}


def question(*expected, id="1", kind="calculator", text="What is 23 * 47?"):
    return Question(id, kind, [{"role": "user", "content": text}], toolbox.schemas(), list(expected))


def said(*calls):
    return hermes.write([Call(call["name"], call["arguments"]) for call in calls])


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


# --- verdicts ---


@pytest.mark.parametrize(
    "expected, reply, word, detail",
    [
        ([SUM], said(SUM), "valid", ""),
        ([], "Hello.", "valid", ""),
        ([SUM], "1081", "no_call", "1 call was due, none was made."),
        ([SUM, PARIS], "1081", "no_call", "2 calls were due, none was made."),
        ([], said(PARIS), "unwanted_call", "No call was due, get_weather was called."),
        ([SUM], '<tool_call>{"name": "calcu', "malformed", "The reply ended inside the call"),
        ([SUM], said(SUM, PARIS), "wrong_count", "1 call was due, 2 made."),
        ([SUM], said(PARIS), "wrong_function", "Due: calculator"),
        ([SUM], said({"name": "calc", "arguments": {}}), "wrong_function", "There is no tool named 'calc'"),
        ([PARIS], said({"name": "get_weather", "arguments": {}}), "missing_required", "needs the argument 'city'"),
        ([PARIS], said({"name": "get_weather", "arguments": {"town": "Paris"}}), "unexpected_parameter", "'town'"),
        ([PARIS], said({"name": "get_weather", "arguments": {"city": 3}}), "type_error", "must be of type string"),
        ([SUM], said({"name": "calculator", "arguments": {"expression": "1"}}), "value_error",
         'Due: calculator {"expression": "23 * 47"}. Written: calculator {"expression": "1"}.'),
    ],
)  # fmt: skip
def test_every_word_has_its_sentence(expected, reply, word, detail):
    found = scorecard.verdict(question(*expected), reply, hermes)
    assert found.word == word
    assert detail in found.detail
    assert bool(found.detail) == (word != VALID)


@pytest.mark.parametrize(
    "arguments, word, detail",
    [
        ({"width": 2.5}, "valid", ""),
        ({"width": 2.5, "unit": "Centi-metres"}, "valid", ""),  # the leaderboard ignores case and dashes
        ({"width": 3}, "value_error", "Invalid value for parameter 'width'"),
        ({"width": "2.5"}, "type_error", "Expected type float"),
        ({"unit": "cm"}, "missing_required", "Missing required parameter: 'width'."),
        ({"width": 2.5, "height": 1}, "unexpected_parameter", "'height'"),
    ],
)
def test_the_leaderboards_questions_are_judged_by_its_rules(tmp_path, arguments, word, detail):
    files = [write(tmp_path / "q" / "x.json", LEADERBOARD), write(tmp_path / "a" / "x.json", POSSIBLE)]
    (one,) = read(files)
    found = scorecard.verdict(one, said({"name": "area", "arguments": arguments}), hermes)
    assert (found.word, detail in found.detail) == (word, True)
    assert one.tools[0]["function"]["parameters"]["properties"]["width"] == {"type": "number"}
    assert one.kind == "BFCL simple python"


def test_calls_are_kept_as_json_without_half_characters():
    found = scorecard.verdict(question(SUM), said({"name": "f", "arguments": {"a": "\ud800"}}) + "<tool_call>{", hermes)
    calls = scorecard.written_calls(found.calls)
    assert calls[0] == {"name": "f", "arguments": {"a": "?"}}
    assert (calls[1]["fault"], calls[1]["raw"]) == ("truncated", "<tool_call>{")
    json.dumps(calls, ensure_ascii=False).encode("utf-8")


def test_a_format_that_the_template_does_not_speak_is_told():
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": SUM}]}
    result = {"role": "tool", "name": "calculator", "content": "1081"}
    messages = [
        {"role": "system", "content": "Be brief."},
        *({"role": "user", "content": "23 * 47?"}, called, result, {"role": "user", "content": "And Paris?"}),
    ]
    asked = scorecard.conversation(Question("1", "", messages, toolbox.schemas(), [PARIS]), react)
    assert asked.tools == []
    assert [m["role"] for m in asked.messages] == ["system", "user", "assistant", "user"]
    assert asked.messages[0]["content"].startswith("Be brief.\n\n")
    assert "get_weather" in asked.messages[0]["content"]
    assert asked.messages[2]["content"] == react.write([Call(SUM["name"], SUM["arguments"])])
    assert asked.messages[3]["content"] == react.write_result("calculator", "1081") + "\nAnd Paris?"
    assert messages[1] == {"role": "user", "content": "23 * 47?"}


# --- sets ---


@pytest.mark.parametrize("name", SETS)
def test_a_built_in_set_is_the_same_each_time_and_each_question_once(name):
    found = built_in(name, 20, 3)
    assert found == built_in(name, 20, 3) != built_in(name, 20, 4)
    assert len({one.key for one in found}) == 20
    for one in found:
        check_messages(one.messages)
        assert one.messages[-1]["role"] == "user"
        answer = said(*one.expected) if one.expected else "Hello."
        assert scorecard.verdict(one, answer, hermes).word == VALID


def test_kinds_of_the_built_in_sets():
    assert {one.kind for one in built_in("demo", 200)} == {"calculator", "weather", "several calls", "no tool"}
    mixed = built_in("every-kind", 12)
    every = [one.kind for one in mixed]
    assert len({json.dumps(one.messages) for one in mixed}) == 12
    assert [every.count(kind) for kind in dict.fromkeys(every)] == [3, 3, 2, 2, 2]
    for one in built_in("irrelevant", 10):
        assert (one.expected, len(one.tools)) == ([], 1)
        needed = {"calculator": "get_weather", "get_weather": "calculator"}[one.tools[0]["function"]["name"]]
        assert (needed == "calculator") == any(c.isdigit() for c in one.messages[0]["content"])


def test_some_of_a_file():
    questions = [question(id=str(number)) for number in range(10)]

    def ids(n, seed=0):
        return [one.id for one in choose(questions, n, seed)]

    assert ids(3) == ["0", "1", "2"]
    assert ids(0) == ids(99) == [str(number) for number in range(10)]
    drawn = ids(5, seed=1)
    assert (drawn == sorted(drawn), drawn == ids(5, seed=1), drawn == ids(5, seed=2)) == (True, True, False)


def test_a_visitors_rows(tmp_path):
    add = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    call = {"name": "add", "arguments": {"a": 1}}
    path = write(
        tmp_path / "mine.jsonl",
        {"question": "Add 1.", "tools": [add], "expected": [call], "kind": "sums", "id": "first"},
        "",
        {"messages": [{"role": "user", "content": "Hello"}], "expected": []},
    )
    first, second = read([path])
    assert (first.id, first.kind, first.expected) == ("first", "sums", [call])
    assert first.tools == [{"type": "function", "function": add}]
    assert (second.id, second.kind, second.tools) == ("3", "no tool", toolbox.schemas())


@pytest.mark.parametrize(
    "row, message",
    [
        ("{", "row 2 is not JSON"),
        ("[1]", "row 2 must be a JSON object"),
        ({"expected": []}, 'row 2: a row needs "question"'),
        ({"question": "Hi"}, 'row 2: a row needs "expected"'),
        ({"question": " ", "expected": []}, "row 2: message 1 (user) is empty"),
        ({"question": "Hi", "expected": [], "tools": []}, 'row 2: "tools" must be a list of one tool'),
        ({"question": "Hi", "expected": [], "tools": [{"name": "f"}]}, 'row 2: a tool schema must hold a "name"'),
        ({"question": "Hi", "expected": ["f"]}, "row 2: an expected call must read"),
        ({"question": "Hi", "expected": [{"name": "f", "arguments": {}}]}, "row 2: the expected call does not fit"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}], "expected": []},
         "row 2: the last message must be the user's"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path, row, message):
    path = write(tmp_path / "mine.jsonl", {"question": "Hello", "expected": []}, row)
    with pytest.raises(PlaygroundError) as caught:
        read([path])
    assert message in str(caught.value)


def test_bad_files_are_named(tmp_path):
    questions = write(tmp_path / "BFCL_v4_simple_python.json", LEADERBOARD)
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = {**LEADERBOARD, "function": [{"name": "area", "parameters": {"properties": {"width": {"type": "odd"}}}}]}
    for paths, message in (
        ([questions], "needs its file of possible answers"),
        ([write(tmp_path / "answers.json", POSSIBLE)], "possible answers only"),
        ([empty], "holds no .json"),
        ([tmp_path / "nowhere.jsonl"], "cannot be read: No such file"),
        ([write(tmp_path / "none.jsonl", "")], "has no rows"),
        ([write(tmp_path / "b.json", broken), tmp_path / "answers.json"], "'simple_python_7' is no question of"),
    ):
        with pytest.raises(PlaygroundError) as caught:
            read(paths)
        assert message in str(caught.value)
    for n in (0, -1, question_sets.MAX_QUESTIONS + 1):
        with pytest.raises(PlaygroundError, match="must be between 1 and"):
            built_in("demo", n)


def test_possible_answers_beside_their_questions_are_found(tmp_path):
    path = write(tmp_path / "BFCL_v4_simple_python.json", LEADERBOARD)
    write(tmp_path / "possible_answer" / "BFCL_v4_simple_python.json", POSSIBLE)
    assert [one.id for one in read([path])] == [one.id for one in read([tmp_path])] == ["simple_python_7"]
    none = write(tmp_path / "BFCL_v4_irrelevance.json", {**LEADERBOARD, "id": "irrelevance_0"})
    (one,) = read([none])
    assert (one.expected, scorecard.verdict(one, "No.", hermes).word) == ([], VALID)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the leaderboard's files are not here")
def test_the_leaderboards_own_files():
    kinds = [one.kind for one in read([SHARED])]
    assert (kinds.count("BFCL simple python"), kinds.count("BFCL multiple")) == (400, 200)


# --- tables ---


def card(*words, id="a", titles=("base",), texts=None):
    """One column for each title; `words` question by question."""
    count = len(words) // len(titles)
    questions = tuple(
        question(SUM, kind="calculator" if n % 2 == 0 else "weather", text=f"Question {texts[n] if texts else n}")
        for n in range(count)
    )
    rows = tuple(Row(i % len(titles), i // len(titles), word, "") for i, word in enumerate(words))
    columns = tuple(Column(title, "m", None, "chatml-tools", "hermes") for title in titles)
    return Card(id, "test", 1.0, columns, questions, rows, "done")


def test_counts_rates_and_intervals():
    (cells,) = scorecard.table(card("valid", "valid", "no_call", FAILED))
    assert list(cells) == list(WORDS)
    assert (cells["valid"].count, cells["valid"].total, cells["valid"].rate) == (2, 3, 2 / 3)
    assert [round(x, 3) for x in cells["valid"].interval] == [0.208, 0.939]
    assert cells["no_call"].to_json() == {"count": 1, "rate": 0.3333, "interval": [0.0615, 0.7923]}
    assert sum(cell.count for cell in cells.values()) == 3


def test_by_kind_and_in_numbers():
    one = card("valid", "no_call", "no_call", "valid", "valid", FAILED, titles=("base", "tuned"))
    kinds = scorecard.by_kind(one)
    assert [(c["valid"].count, c["valid"].total) for c in kinds["calculator"]] == [(2, 2), (0, 1)]
    assert [(c["valid"].count, c["valid"].total) for c in kinds["weather"]] == [(0, 1), (1, 1)]
    base, tuned = scorecard.summary(one)["lanes"]
    assert (base["lane"], base["valid"], base["total"], base["failed"]) == ("base", 2, 3, 0)
    assert (tuned["valid"], tuned["total"], tuned["failed"]) == (1, 2, 1)
    assert base["outcomes"]["no_call"]["count"] == 1
    assert tuned["kinds"]["weather"]["rate"] == 1.0


def test_before_and_after():
    before = card("valid", "no_call", "no_call", "no_call", FAILED)
    after = card("no_call", "valid", "valid", "value_error", "valid", id="b")
    found = scorecard.compare(before, 0, after, 0)
    assert len(found.questions) == 4  # the one that failed is left out
    assert (found.gained, found.lost, found.changed) == (2, 1, [0, 1, 2, 3])
    assert [(w, old.count, new.count) for w, (old, new) in found.words.items() if old.count != new.count] == [
        ("valid", 1, 2),
        ("no_call", 3, 1),
        ("value_error", 0, 1),
    ]


def test_only_the_same_questions_are_compared():
    before, after = card("valid", "valid", texts="ab"), card("no_call", "no_call", texts="cb")
    found = scorecard.compare(before, 0, after, 0)
    assert [one.messages[0]["content"] for one in found.questions] == ["Question b"]


@pytest.mark.parametrize("a, b, p", [(0, 0, 1.0), (1, 1, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (9, 1, 22 / 1024)])
def test_the_sign_test(a, b, p):
    assert scorecard.sign_test(a, b) == p


def test_a_card_survives_json():
    one = card("valid", FAILED)
    stored = json.loads(json.dumps(scorecard.to_json(one)))
    assert scorecard.from_json(stored) == one
    for broken in ({}, {**stored, "version": 2}, {**stored, "rows": [1]}, {**stored, "questions": []}):
        with pytest.raises(PlaygroundError):
            scorecard.from_json(broken)


def test_a_data_set_asks_up_to_its_last_answer_to_a_user():
    rows = synthesis.tool_calls(40, 3, "test")
    conversations = [from_row(row) for row in rows]
    plain = from_row({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})
    found = of_data("mine", [plain, *conversations])
    expected = synthesis.questions(rows)
    assert [(q.messages, q.expected) for q in found] == [(messages, due) for messages, due in expected]
    assert found[0].id == "2"  # its number in the data set
    assert {q.kind for q in found} >= {"calculator", "weather", "no tool"}
    with pytest.raises(PlaygroundError, match="mine has no rows with tools"):
        of_data("mine", [plain])
