"""Chat: three lanes stream, stop, are asked again, are voted on; nothing a model or visitor writes is obeyed."""

import re

import pytest

EVIL = '<img src=x onerror="window.obeyed=1"><script>window.obeyed=1</script> <b>bold</b> & <tool_call>'


@pytest.fixture
def chat(visit):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Chat")
    return visitor


def set_sampling(visitor, **values):
    visitor.page.get_by_role("button", name="System prompt, tools and sampling").click()
    for name, value in values.items():
        visitor.page.get_by_label(name.replace("_", " "), exact=False).first.fill(str(value))


def ask(visitor, text):
    visitor.page.locator("#arena-prompt textarea").fill(text)
    visitor.page.locator("#arena-send").click()


def lane(visitor, number):
    return visitor.page.locator(f"#lane-{number}")


def done(visitor, number, timeout=120_000):
    words = re.compile("finished|cut at|stopped")
    lane(visitor, number).locator(".lane-status", has_text=words).wait_for(timeout=timeout)


def lanes_shown(visitor):
    return visitor.page.locator(".lane:visible").count()


def votes(visitor) -> int:
    visitor.page.locator("#arena-counts .votes").wait_for()
    total = visitor.page.locator("#arena-counts [data-total]")
    return int(total.get_attribute("data-total")) if total.count() else 0


def test_all_lanes_answer_and_a_vote_is_counted(chat, picture):
    page = chat.page
    before = votes(chat)  # other tests vote too
    count = lanes_shown(chat)
    assert count >= 2
    set_sampling(chat, max_new_tokens=40)
    ask(chat, "What is 23 * 47?")
    for number in range(1, count + 1):
        done(chat, number)
        assert "What is 23 * 47?" in lane(chat, number).locator(".message").first.inner_text()
        assert re.search(r"\d+ tokens?", lane(chat, number).locator(".lane-status").inner_text())
    assert page.locator("#arena-prompt textarea").input_value() == ""
    page.get_by_role("button", name="System prompt, tools and sampling").click()
    page.locator("#vote-right").click()
    page.locator(f"#arena-counts [data-total='{before + 1}']").wait_for()
    page.wait_for_function("document.querySelector('#vote-right').disabled")
    picture(chat, "chat", 1150)

    again = chat  # a second vote needs a second battle
    lane(again, 1).get_by_role("button", name="Regenerate").click()
    done(again, 1)
    page.wait_for_function("!document.querySelector('#vote-tie').disabled")
    page.locator("#vote-tie").click()
    page.locator(f"#arena-counts [data-total='{before + 2}']").wait_for()


def test_the_exact_prompt_of_each_lane_can_be_read(chat):
    set_sampling(chat, max_new_tokens=4)
    ask(chat, "Say hello.")
    done(chat, 1)
    done(chat, 2)
    for number, expected in ((1, "Instruction: Say hello."), (2, "<|im_start|>user")):
        lane(chat, number).get_by_role("button", name="Exact prompt").click()
        lane(chat, number).locator(".cm-content", has_text=expected).wait_for()


def test_a_second_turn_keeps_the_first(chat):
    set_sampling(chat, max_new_tokens=6)
    ask(chat, "My name is Ada.")
    done(chat, 2)
    done(chat, 1)
    chat.page.locator("#arena-send").wait_for()
    ask(chat, "What is my name?")
    lane(chat, 2).locator(".message", has_text="What is my name?").first.wait_for()
    assert lane(chat, 2).locator(".message", has_text="My name is Ada.").count() >= 1
    chat.page.locator("#arena-send").wait_for(timeout=120_000)
    chat.page.locator("#arena-clear").click()
    lane(chat, 2).get_by_text("Ask something above.").wait_for()


def test_all_lanes_are_asked_again_and_the_question_edited(chat):
    page = chat.page
    set_sampling(chat, max_new_tokens=4)
    ask(chat, "Name a friut.")
    for number in (1, 2):
        done(chat, number)
    before = [lane(chat, number).locator(".bot.message").inner_text() for number in (1, 2)]
    page.locator("#arena-again").click()
    page.wait_for_function("document.querySelector('#arena-again').disabled")
    page.wait_for_function("!document.querySelector('#arena-again').disabled")
    after = [lane(chat, number).locator(".bot.message").inner_text() for number in (1, 2)]
    assert before != after
    assert lane(chat, 1).locator(".user.message").count() == 1
    page.locator("#arena-edit").click()
    page.wait_for_function("document.querySelector('#arena-prompt textarea').value == 'Name a friut.'")
    ask(chat, "Name a fruit.")
    lane(chat, 1).locator(".user.message", has_text="Name a fruit.").wait_for()
    assert [lane(chat, number).locator(".user.message").count() for number in (1, 2)] == [1, 1]


def test_stop_ends_the_lanes_and_keeps_what_they_wrote(chat):
    set_sampling(chat, max_new_tokens=2000, temperature=1.0)
    chat.page.locator("#lane-2").scroll_into_view_if_needed()
    ask(chat, "Write a very long story about the sea.")
    lane(chat, 2).locator(".lane-status", has_text=re.compile(r"[3-9]\d* tokens")).wait_for()
    # on a busy machine the page under the pointer does not stand still long enough for Playwright's own click
    lane(chat, 2).get_by_role("button", name="Stop").dispatch_event("click")
    lane(chat, 2).locator(".lane-status", has_text="stopped").wait_for(timeout=15_000)
    # lane 1 may end by itself meanwhile
    chat.page.evaluate("document.querySelector('#arena-stop')?.click()")
    chat.page.locator("#arena-send").wait_for(timeout=15_000)
    assert len(lane(chat, 2).locator(".message").last.inner_text()) > 3


def test_markup_is_shown_and_never_obeyed(chat):
    set_sampling(chat, max_new_tokens=4)
    ask(chat, EVIL)
    done(chat, 1)
    assert EVIL in lane(chat, 1).locator(".message").first.inner_text()
    assert lane(chat, 1).locator(".message img, .message script, .message b").count() == 0
    # in an error message too: the model's name is what the visitor typed
    chat.page.locator("#lane-1 .lane-settings button").first.click()
    box = lane(chat, 1).get_by_label("Model")
    box.fill(EVIL)
    box.press("Enter")
    ask(chat, "Hello")
    failed = lane(chat, 1).locator(".lane-status.failed")
    failed.get_by_text("unknown model").wait_for()
    assert EVIL in failed.inner_text()
    assert lane(chat, 1).locator("img[src=x], .lane-status b").count() == 0
    done(chat, 2)
    assert chat.page.evaluate("window.obeyed") is None


def test_a_message_of_100_000_characters_is_refused_and_kept(chat):
    ask(chat, "a" * 100_000)
    toast = chat.page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "at most 20,000 characters, this one has 100,000" in toast.inner_text()
    assert len(chat.page.locator("#arena-prompt textarea").input_value()) == 100_000


def test_lanes_and_presets_change_with_their_titles(chat):
    chat.page.get_by_label("4", exact=True).check()
    lane(chat, 4).wait_for()
    preset = chat.page.get_by_label("Preset")
    preset.click()
    chat.page.get_by_role("option", name="same model, wrong template").click()
    lane(chat, 3).get_by_text("template llama-2").first.wait_for()
    assert lanes_shown(chat) == 3


@pytest.fixture
def small_model(tmp_path):
    """A folder with a model that reads 200 bytes."""
    from tests.services.test_engine import tiny_model, write_tokenizer

    tiny_model().save_pretrained(tmp_path / "small")
    write_tokenizer(tmp_path / "small")
    return tmp_path / "small"


def test_a_lane_says_which_turns_did_not_fit_into_its_context(chat, small_model):
    set_sampling(chat, max_new_tokens=8)
    lane(chat, 1).locator(".lane-settings button").first.click()
    box = lane(chat, 1).get_by_label("Model")
    box.fill(str(small_model))
    box.press("Enter")
    for number, name in enumerate(("Ada", "Grace", "Alan"), 1):
        ask(chat, f"My name is {name}, and I have a question about the sea.")
        lane(chat, 1).locator(".user.message").nth(number - 1).wait_for()
        for one in (1, 2):
            done(chat, one)
        chat.page.locator("#arena-send").wait_for()
    said = re.compile(
        r"conversation did not fit into 200 tokens, of which the reply may take 8: its first .*turns? \(\d+ tokens\)"
    )
    lane(chat, 1).locator(".left-out", has_text=said).wait_for()
    assert lane(chat, 2).locator(".left-out").count() == 0
    assert "My name is Ada" in lane(chat, 1).locator(".user.message").first.inner_text()
    lane(chat, 1).get_by_role("button", name="Exact prompt").click()
    exact = lane(chat, 1).locator(".exact .cm-content", has_text=said)
    exact.wait_for()
    assert "Alan" in exact.inner_text()
    assert "Ada" not in exact.inner_text()
    ask(chat, "long " * 50)
    said = re.compile(r"the prompt has \d+ tokens .* reads 200 at most")
    lane(chat, 1).locator(".lane-status.failed", has_text=said).wait_for()
    lane(chat, 2).locator(".user.message", has_text="long long").wait_for()
    done(chat, 2)
