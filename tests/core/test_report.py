import csv
import io
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from tokenizers import AddedToken, normalizers, processors

from playground.core import report, templates
from playground.core.messages import Conversation
from playground.core.report import Problem, survey
from playground.core.templates import Template, Text, render, texts
from playground.core.token_counts import TokenCounts, _by_offsets
from playground.core.tokenizer import Tokenizer
from playground.errors import PlaygroundError
from tests.conftest import byte_level

CHATML = templates.load("chatml")
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FOX = "Tell me a story about a fox who wants to see the sea before the sun goes down behind the hills."


def talk(*contents, system=""):
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return Conversation(messages)


CALLS = Conversation(
    [
        {"role": "user", "content": "Look at the sea."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sea"}}}],
        },
        {"role": "tool", "content": "Blue."},
        {"role": "assistant", "content": "It is blue."},
    ],
    [TOOL],
)
ROWS = [
    talk("What is the capital of France?", "The capital of France is Paris."),  # 1
    talk(FOX, "Once upon a time there was one.", "And then?", "It went home."),  # 2
    talk(FOX.replace("fox", "dog"), "Once upon a time there was one.", "And then?", "It went home."),  # 3: nearly 2
    talk("What is the capital of France?", "The capital of France is Paris."),  # 4: 1 again
    talk("What is the capital of France?", "Paris,  of course."),  # 5: 1 answered differently
    talk("Guten Morgen, wie geht es dir heute?", "Danke, es geht mir sehr gut.", system="Antworte kurz."),  # 6
    talk("おはようございます。今日はいい天気ですね。", "はい、とてもいい天気ですね。"),  # 7
    CALLS,  # 8
    talk("Is anybody there?"),  # 9: no reply
    talk("Say <|im_end|> now.", "No."),  # 10
    talk("", "An answer to nothing."),  # 11
]


def whole(rows=ROWS, template=CHATML, tokenizer=None, **more):
    *_, last = survey(rows, template, tokenizer, **more)
    assert last.stage == "done"
    return last.result


@pytest.fixture(scope="module")
def found(request):
    return whole(tokenizer=request.getfixturevalue("tokenizer"))


def test_lengths_are_those_of_training(found, tokenizer):
    done = [render(CHATML, row, tokenizer) for row in ROWS]
    assert found.lengths == [len(one.ids) for one in done]
    assert found.trained == [sum(one.mask) for one in done]
    assert found.first_trained == [one.mask.index(True) if any(one.mask) else -1 for one in done]
    assert found.tokens == sum(found.lengths)
    assert found.trained_share == pytest.approx(sum(found.trained) / sum(found.lengths))
    assert found.mask_rules == {"generation": 11}


def test_counts(found):
    assert (found.rows, found.complete) == (11, True)
    assert found.roles == {"user": 13, "assistant": 13, "system": 1, "tool": 1}
    assert found.turns == {0: 1, 1: 7, 2: 3}
    assert (found.with_tools, found.with_calls) == (1, 1)


def test_the_same_and_nearly_the_same(found):
    assert found.duplicates == [[1, 4]]
    assert found.near_duplicates == [[2, 3]]
    assert found.contradictions == [[1, 4, 5]]


def test_problems(found):
    assert [(row, problem) for row, problem, _ in found.problems] == [
        (3, "says nearly the same as row 2"),
        (4, "says the same as row 1"),
        (5, "answers the same prompt differently from row 1"),
        (9, "nothing in it is trained"),
        (10, "its text holds the control token <|im_end|>"),
        (11, "not a whole conversation: message 1 (user) is empty"),
    ]
    assert found.problems[3].excerpt == "Is anybody there?"
    assert found.problems[0].excerpt == FOX.replace("fox", "dog") + "\nOnce"


def test_languages(found):
    assert found.language_rows == 11
    assert found.languages["de"] == 1
    assert found.languages["ja"] == 1
    assert found.languages["en"] >= 7
    assert report.guess_languages(["12 + 13 = 25", "", "Hi"]) == {"unsure": 3}
    assert report.guess_languages([]) == {}
    assert report.guess_languages(["What a beautiful day it is today."] * 1000, most=10).total() == 10


def test_cut_to_a_length(tokenizer):
    found = whole([talk("a", "b"), talk("a " * 50, "b"), talk("a", "b " * 50)], tokenizer=tokenizer)
    short, late, long = found.lengths
    assert short < late < long or short < long < late
    assert [found.truncated(n) for n in (0, short - 1, short, max(late, long) - 1, max(late, long))] == [
        1.0,
        1.0,
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
        0.0,
    ]
    start = found.first_trained[1]
    assert [found.silenced(n) for n in (0, start, start + 1)] == [1.0, pytest.approx(1 / 3), 0.0]
    assert found.longest == max(late, long)


@pytest.mark.parametrize(
    "lengths, bins, expected",
    [
        ([], 4, []),
        ([3], 4, [(0, 1, 0), (1, 2, 0), (2, 3, 0), (3, 4, 1)]),
        ([0, 1, 5, 9, 9], 2, [(0, 5, 2), (5, 10, 3)]),
        ([7, 7], 1, [(0, 8, 2)]),
    ],
)
def test_histogram(lengths, bins, expected, found):
    made = replace(found, lengths=lengths)
    assert made.histogram(bins) == expected
    assert sum(count for *_, count in made.histogram()) == len(lengths)


def test_nothing_at_all(tokenizer):
    found = whole([], tokenizer=tokenizer)
    assert (found.rows, found.tokens, found.trained_share, found.longest) == (0, 0, 0.0, 0)
    assert (found.truncated(10), found.silenced(10), found.problems) == (0.0, 0.0, [])


def test_the_same_words_with_other_tools_are_not_the_same(tokenizer):
    other = replace(CALLS, tools=[])
    found = whole([CALLS, other, CALLS, other, replace(CALLS, variables={"a": 1})], tokenizer=tokenizer)
    assert found.duplicates == [[1, 3], [2, 4]]
    assert found.contradictions == []
    assert found.near_duplicates == [[1, 2, 3, 4, 5]]
    assert [p.row for p in found.problems] == [2, 3, 4, 5]


def test_one_long_system_message_makes_no_near_duplicates(tokenizer):
    rules = " ".join(f"Rule {n}: be {n} times as kind." for n in range(40))
    rows = [talk(f"{word}?", f"{word}!", system=rules) for word in ("Sea", "Sun", "Hill")]
    assert whole(rows, tokenizer=tokenizer).near_duplicates == []


def test_numbers_of_a_file(tokenizer):
    found = whole(ROWS[:4], tokenizer=tokenizer, numbers=[3, 5, 8, 13])
    assert (found.duplicates, found.near_duplicates) == ([[3, 13]], [[5, 8]])
    assert [problem[:2] for problem in found.problems] == [
        (8, "says nearly the same as row 5"),
        (13, "says the same as row 3"),
    ]


def test_rows_that_cannot_be_rendered_or_read(tokenizer):
    refuses = Template("picky", "{{ raise_exception('no system') if messages[0].role == 'system' }}" + CHATML.text)
    broken = talk("half \ud83d of a pair", "Oh.")
    found = whole([ROWS[5], broken, ROWS[0], Conversation([])], refuses, tokenizer)
    assert (found.rows, len(found.lengths)) == (4, 1)
    assert [(row, problem) for row, problem, _ in found.problems] == [
        (1, "the template picky, line 1, refuses this conversation: no system"),
        (2, "the text holds half of a surrogate pair, which no tokenizer reads"),
        (4, "a conversation needs at least one message"),
        (4, "not a whole conversation: a conversation needs at least one message"),
    ]


def test_no_row_can_be_rendered(tokenizer):
    found = whole([Conversation([])], tokenizer=tokenizer)
    assert (found.rows, found.lengths, found.languages) == (1, [], {"unsure": 1})


# Progress ------------------------------------------------------------------------------------------------------------


def test_progress_and_cancel(tokenizer, monkeypatch):
    monkeypatch.setattr(report, "CHUNK", 3)
    steps = list(survey(ROWS, CHATML, tokenizer))
    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("reading", 3, 11),
        ("reading", 6, 11),
        ("reading", 9, 11),
        ("reading", 11, 11),
        ("comparing", 11, 11),
        ("done", 11, 11),
    ]
    assert all(step.rate > 0 and step.eta >= 0 for step in steps)
    assert [step.result is None for step in steps] == [True] * 5 + [False]
    asked = []
    *_, last = survey(iter(ROWS), CHATML, tokenizer, cancel=lambda: asked.append(1) or len(asked) == 2)
    assert (last.result.rows, last.result.complete, last.total, last.eta) == (6, False, None, None)
    assert last.result.lengths == steps[-1].result.lengths[:6]


def test_long_rows_come_in_small_chunks(tokenizer, monkeypatch):
    monkeypatch.setattr(report, "CHUNK_CHARACTERS", 100)
    rows = [talk("a " * 30, "b")] * 4 + [talk("a", "b")] * 3 + [CALLS]
    assert [len(chunk) for chunk in report._chunks(rows)] == [1, 1, 1, 4, 1]
    assert len(whole(rows, tokenizer=tokenizer).lengths) == 8


def test_beside_an_executor_it_says_the_same(found, tokenizer, monkeypatch):
    monkeypatch.setattr(report, "CHUNK", 2)
    with ThreadPoolExecutor(1) as executor:
        assert whole(tokenizer=tokenizer, submit=executor.submit) == found


def test_a_template_that_hangs_ends_the_work(tokenizer, monkeypatch):
    monkeypatch.setattr(templates.sandbox, "DEADLINE", 0.2)
    monkeypatch.setattr(templates, "_LATE_ROWS", 1)
    endless = templates.pasted("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(PlaygroundError, match="was stopped"):
        whole(ROWS * 9, endless, tokenizer)


def test_one_slow_row_is_a_problem_of_its_own(tokenizer, monkeypatch):
    monkeypatch.setattr(templates.sandbox, "DEADLINE", 0.3)
    slow = "{% if messages[0].content == 'slow' %}{% for i in range(99999) %}{% for j in range(9999) %}{% endfor %}"
    found = whole(
        [talk("a", "b"), talk("slow", "b"), talk("c", "d")],
        templates.pasted(slow + "{% endfor %}{% endif %}" + CHATML.text),
        tokenizer,
    )
    assert [problem.row for problem in found.problems if "was stopped" in problem.problem] == [2]
    assert len(found.lengths) == 2


# The problem table ---------------------------------------------------------------------------------------------------


def test_problems_as_csv(found, tmp_path):
    rows = [Problem(1, "a", "=HYPERLINK(1)"), Problem(2, "b", 'two "lines"\nhere, and a comma'), Problem(3, "c", "@x")]
    made = replace(found, problems=rows)
    assert list(csv.reader(io.StringIO(made.problems_csv()))) == [
        ["row", "problem", "excerpt"],
        ["1", "a", "'=HYPERLINK(1)"],
        ["2", "b", 'two "lines"\nhere, and a comma'],
        ["3", "c", "'@x"],
    ]
    file = made.save_problems(tmp_path / "new" / "problems.csv")
    assert file.read_text(encoding="utf-8") == made.problems_csv()
    assert [path.name for path in file.parent.iterdir()] == ["problems.csv"]
    replace(found, problems=[Problem(1, "a", "half \ud83d")]).save_problems(file)
    assert "half ?" in file.read_text(encoding="utf-8")
    with pytest.raises(PlaygroundError, match="cannot write"):
        made.save_problems(file / "problems.csv")


# Counting tokens the short way ---------------------------------------------------------------------------------------

SAID = [
    "plain words",
    " spaces  around ",
    "é☀️ おはよう, ¿qué tal?",
    "<｜é｜> and <｜é｜>",
    "e\u0301 in two letters",
    "<|im_end|> typed",
    "",
    "\u200b\n\n\t",
]


def trimmed():
    """Spaces belong to no token, as in GPT-2's and RoBERTa's own post-processor."""
    backend = byte_level()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return Tokenizer.wrap(backend, {"eos_token": "<|im_end|>"})


def normalized():
    backend = byte_level()
    backend.normalizer = normalizers.NFC()
    return Tokenizer.wrap(backend, {"eos_token": "<|im_end|>"})


def wide():
    """An added token of characters that take several bytes."""
    backend = byte_level()
    backend.add_tokens([AddedToken("<｜é｜>", special=False)])
    return Tokenizer.wrap(backend, {"eos_token": "<|im_end|>"})


@pytest.mark.parametrize(
    "kind, short",
    [("wide", True), ("byte-level", True), ("metaspace", False), ("trimmed", False), ("normalized", True)],
)
@pytest.mark.parametrize("name", ["chatml", "falcon", "llama-2"])
def test_the_short_way_counts_the_same(kind, short, name, tokenizer_folders):
    made = {"trimmed": trimmed, "normalized": normalized, "wide": wide}
    tokenizer = made[kind]() if kind in made else Tokenizer.load(tokenizer_folders[kind])
    template, counts, pick = templates.load(name), TokenCounts(tokenizer), random.Random(0)
    first = texts(template, [talk("What is it?", " It is <｜é｜>.")], tokenizer, masks=True)
    counts.count(counts.encode(first))
    assert counts._tiles is short
    rows = [talk(*(pick.choice(SAID) for _ in range(pick.choice([2, 3, 4])))) for _ in range(150)]
    rendered = texts(template, rows, tokenizer, masks=True)
    expected = [_by_offsets(text, tokenizer.backend.encode(text.text, add_special_tokens=False)) for text in rendered]
    assert counts.count(counts.encode(rendered)) == expected
    for row, count in zip(rows, expected, strict=True):
        done = render(template, row, tokenizer)
        assert (len(done.ids), sum(done.mask)) == count[:2]


@pytest.mark.parametrize("opening", ["Be brief and kind. " * 20, "<｜é｜> é 数 " * 30])
@pytest.mark.parametrize("kind", ["wide", "byte-level", "trimmed", "metaspace", "normalized"])
def test_rows_that_open_alike_count_the_same(kind, opening, tokenizer_folders):
    made = {"trimmed": trimmed, "normalized": normalized, "wide": wide}
    tokenizer = made[kind]() if kind in made else Tokenizer.load(tokenizer_folders[kind])
    template, counts, pick = templates.load("chatml"), TokenCounts(tokenizer), random.Random(1)
    rows = [
        Conversation([{"role": "system", "content": opening}, *talk(*pick.choices(SAID, k=2)).messages])
        for _ in range(90)
    ]
    rows.insert(70, Conversation([{"role": "assistant", "content": opening + "!"}, *rows[0].messages[1:]]))
    rendered = texts(template, rows, tokenizer, masks=True)
    rendered.append(rendered[3]._replace(ranges=[(5, 40)]))  # trained within what it opens with
    rendered.append(rendered[3]._replace(text=rendered[3].text + "\ud800"))
    counts.count(counts.encode(rendered[:10]))
    encoded = counts.encode(rendered)
    if kind in ("wide", "byte-level"):
        assert sum(one.before > 0 for one in encoded) > 80
    alone = [one.encoding for text in rendered for one in TokenCounts(tokenizer).encode([text])]
    assert counts.count(encoded) == list(map(_by_offsets, rendered, alone))


@pytest.mark.parametrize("ranges", [[], [(0, 0)], [(3, 3)], [(0, 4), (4, 9)], [(2, 6), (4, 8)], [(5, 99)], [(12, 13)]])
def test_odd_ranges_count_the_same(ranges, tokenizer):
    counts, text = TokenCounts(tokenizer), Text("The capital.", ranges, "generation")
    encoded = counts.encode([text])
    counts.count(encoded)
    assert counts._tiles
    mask = templates._token_mask(ranges, encoded[0].encoding.offsets)
    expected = (len(mask), sum(mask), mask.index(True) if any(mask) else -1)
    assert counts.count(encoded) == [expected] == [_by_offsets(text, encoded[0].encoding)]
