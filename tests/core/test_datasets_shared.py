"""Every data file of ../shared/data: what it is read as, and how many rows it gives."""

from functools import cache
from pathlib import Path

import pytest

from playground.core import datasets
from playground.core.datasets import Dataset, NoRows
from playground.core.datasets.summary import answered

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared/data is not there")

# path, format, rows, conversations (None: as many as rows), of these without an answer
FILES = [
    ("arena_votes/llmfao_prompts.jsonl", "prompts", 19, None, 19),
    ("bbh/boolean_expressions.json", "question-answer", 250, None, 0),
    ("bbh/date_understanding.json", "question-answer", 250, None, 0),
    ("bbh/navigate.json", "question-answer", 250, None, 0),
    ("bfcl/BFCL_v4_multiple.json", "bfcl", 200, None, 200),
    ("bfcl/BFCL_v4_simple_python.json", "bfcl", 400, None, 400),
    ("gpteacher/toolformer-similarity-0.6-dataset.json.gz", "alpaca", 2396, None, 0),
    ("gsm8k/test.jsonl", "question-answer", 1319, None, 0),
    ("gsm8k/train.jsonl.gz", "question-answer", 7473, None, 0),
    ("ifeval/ifeval_en_input_data.jsonl", "prompts", 541, None, 541),
    ("llamafactory/dpo_en_demo.json", "preference", 300, None, 0),
    ("llamafactory/glaive_toolcall_en_demo.json", "sharegpt", 300, None, 0),
    ("llamafactory/identity.json", "alpaca", 91, None, 0),
    ("llamafactory/kto_en_demo.json", "preference", 300, None, 0),
    ("llamafactory/reason_tool_use_demo_50.jsonl", "messages", 50, None, 0),
    ("llmbar/Adversarial_GPTInst.json", "preference", 92, None, 0),
    ("llmbar/Adversarial_GPTOut.json", "preference", 47, None, 0),
    ("llmbar/Adversarial_Manual.json", "preference", 46, None, 0),
    ("llmbar/Adversarial_Neighbor.json", "preference", 134, None, 0),
    ("llmbar/Natural.json", "preference", 100, None, 0),
    ("llms_from_scratch/instruction-data-with-preference.json", "preference", 1100, None, 0),
    ("llms_from_scratch/instruction-data-with-response.json", "alpaca", 110, None, 0),
    ("llms_from_scratch/instruction-data.json", "alpaca", 1100, None, 0),
    ("llms_from_scratch/instruction-examples.json", "alpaca", 200, None, 0),
    ("mmlu/mmlu_dev.jsonl", "question-answer", 285, None, 0),
    ("mmlu/mmlu_test_5_subjects.jsonl", "question-answer", 784, None, 0),
    ("mt_bench/dummy_conversation.json", "sharegpt", 500, None, 0),
    ("mt_bench/mt_bench_question.jsonl", "prompts", 80, None, 80),
    ("mt_bench/vicuna_bench_question.jsonl", "prompts", 80, None, 80),
    ("self_instruct/davinci-self-instruct_predictions.jsonl", "alpaca", 252, None, 0),
    ("self_instruct/davinci_predictions.jsonl", "alpaca", 252, None, 0),
    ("self_instruct/seed_tasks.jsonl", "self-instruct", 175, None, 0),
    ("self_instruct/text-davinci-001_predictions.jsonl", "alpaca", 252, None, 0),
    ("self_instruct/text-davinci-003_predictions.jsonl", "alpaca", 252, None, 0),
    ("self_instruct/user_oriented_instructions.jsonl", "self-instruct", 252, None, 0),
    ("toolalpaca/eval_real.json", "toolalpaca", 11, 114, 4),
    ("toolalpaca/eval_simulated.json", "toolalpaca", 10, 100, 8),
    ("truthfulqa/TruthfulQA.csv", "question-answer", 790, None, 0),
    ("truthfulqa/mc_task.json", "question-answer", 790, None, 0),
]
# Votes, catalogs of models, judges' templates, answers without their questions, outputs for parsers: no conversations.
OTHERS = [
    "arena_votes/food-golden.csv",
    "arena_votes/food.csv",
    "arena_votes/llmfao.csv",
    "arena_votes/llmfao_models.jsonl",
    "arena_votes/llmfao_results.jsonl.gz",
    "arena_votes/simple-golden.csv",
    "arena_votes/simple.csv",
    "bfcl/possible_answer/BFCL_v4_multiple.json",
    "bfcl/possible_answer/BFCL_v4_simple_python.json",
    "mt_bench/judge_prompts.jsonl",
    "mt_bench/mt_bench_reference_answer_gpt-4.jsonl",
    "mt_bench/vicuna_bench_reference_answer_gpt-4.jsonl",
    "tool_calls/cases.jsonl",
]
# Each holds a conversation beside a template; one of the ten shows pictures, which are not read.
CASES = "template_renders/cases.jsonl"


@cache
def load(path: str) -> Dataset:
    return datasets.load(SHARED / path)


@pytest.mark.parametrize("path, format, rows, conversations, prompts", FILES)
def test_rows(path, format, rows, conversations, prompts):
    found = load(path)
    assert (found.format, found.rows, found.problems, found.bad) == (format, rows, [], 0)
    assert list(found.formats) == [format]
    assert len(found.conversations) == len(found.numbers) == len(found.extras) == (conversations or rows)
    assert sum(not answered(c) for c in found.conversations) == prompts


@pytest.mark.parametrize("path", OTHERS)
def test_other_files_say_so(path):
    with pytest.raises(NoRows, match="no known format has the columns"):
        load(path)


def test_conversations_beside_templates():
    found = load(CASES)
    assert (found.format, found.rows) == ("messages", 9)
    assert found.problems == ["cases.jsonl, row 10: message 1 (user): content must be text, got a list"]


def test_no_file_is_left_out():
    kinds = (".json", ".jsonl", ".csv", ".gz")
    there = {str(p.relative_to(SHARED)) for p in SHARED.rglob("*") if p.suffix in kinds}
    assert there == {path for path, *_ in FILES} | {*OTHERS, CASES}


def test_what_stands_in_the_rows():
    """One row of each peculiar file, by its parts."""
    tools = load("llamafactory/glaive_toolcall_en_demo.json").conversations
    assert tools[0].tools[0]["function"]["name"] == "search_recipes"
    assert [m["role"] for m in tools[0].messages][:6] == ["user", "assistant", "user", "assistant", "tool", "assistant"]
    thought = load("llamafactory/reason_tool_use_demo_50.jsonl").conversations
    assert all(m.get("reasoning_content") for c in thought for m in c.messages if m["role"] == "assistant")
    assert {len(m["tool_calls"]) for c in thought for m in c.messages if "tool_calls" in m} >= {1, 2}
    pairs = load("llms_from_scratch/instruction-data-with-preference.json").extras
    assert all(len(extras["rejected"]) == 1 for extras in pairs)
    kto = load("llamafactory/kto_en_demo.json").extras
    assert sum(extras["desirable"] for extras in kto) == 150
    gsm = load("gsm8k/test.jsonl").extras
    assert [extras["reference"] for extras in gsm[:3]] == ["18", "3", "70000"]
    bfcl = load("bfcl/BFCL_v4_multiple.json").conversations[0]
    assert bfcl.tools[1]["function"]["parameters"]["properties"]["radius"]["type"] == "number"
    alpaca = load("toolalpaca/eval_simulated.json").conversations
    assert len(alpaca[6].messages[1]["tool_calls"]) == 3
