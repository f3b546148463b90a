"""Templates: an example in several templates side by side, as text and as tokens."""


def test_an_example_is_shown_in_several_templates_with_what_is_trained(visit, picture):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Templates")
    cards = visitor.page.locator(".templates-card")
    cards.nth(2).wait_for()
    assert cards.count() == 3
    assert "<tool_call>" in cards.nth(0).inner_text()
    assert "### Instruction:" in cards.nth(1).inner_text()
    for number in range(3):
        assert "tokens" in cards.nth(number).locator(".counts").inner_text()
        assert "23 * 47 is 1081." in "".join(cards.nth(number).locator(".trained").all_inner_texts())
    picture(visitor, "templates", 1150)


def test_tokens_show_their_ids_and_a_pasted_line_is_rendered(visit):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Templates")
    page = visitor.page
    page.get_by_label("Tokens", exact=True).check()
    page.locator(".templates-card .tokens").first.wait_for()
    chip = page.locator(".templates-card .tokens [title]").first
    assert any(character.isdigit() for character in chip.get_attribute("title"))
    visitor.field("Example: messages as JSON, or plain text").fill("Hello <b>there</b>")
    page.locator(".templates-card", has_text="there").first.wait_for()
    assert page.locator(".templates-card b", has_text="there").count() == 0


def test_broken_json_is_said_in_a_sentence_and_nothing_is_lost(visit):
    visitor = visit()
    visitor.open("Templates")
    example = visitor.field("Example: messages as JSON, or plain text")
    example.fill('{"messages": [')
    visitor.page.get_by_text("not valid JSON").first.wait_for()
    assert example.input_value() == '{"messages": ['
