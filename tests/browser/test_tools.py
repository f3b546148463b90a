"""Tools: a question becomes a call, the call is run, its result becomes the answer; every step can be read."""

import re

import pytest


@pytest.mark.parametrize(
    ("question", "call", "answer"),
    [("What is 23 * 47?", "calculator", "1081"), ("What's the weather in Paris?", "get_weather", "Paris")],
)
def test_a_question_becomes_an_executed_call_and_a_true_answer(visit, picture, question, call, answer):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Tools")
    page = visitor.page
    assert "None" not in visitor.field("Adapter").input_value(), "the shipped adapter is chosen by itself"
    page.locator("#tools-question textarea").fill(question)
    page.locator("#tools-ask").click()
    chat = page.locator("#tools-chat")
    for step in (f"Call: {call}", "Check: fits the tool's schema", "Result"):
        chat.get_by_text(step).first.wait_for(timeout=180_000)
    page.locator("#tools-status", has_text="answered").wait_for(timeout=180_000)
    chat.locator("[data-testid='bot']").last.filter(has_text=answer).wait_for()
    page.get_by_role("button", name="Exact prompt of every turn").click()
    page.locator(".tools-exact .cm-content", has_text=re.compile("turn 1")).wait_for()
    page.get_by_role("button", name="Exact prompt of every turn").click()
    if call == "calculator":
        picture(visitor, "tools")
