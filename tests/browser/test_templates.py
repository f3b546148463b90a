"""Templates: bring data in, walk through it, see it side by side, as a batch, linted, reported; write one."""

import time

import pytest

from tests.browser.conftest import settle

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = {
    "wide": {"viewport": WIDE},
    "phone": {"viewport": PHONE},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
}
EXAMPLE = "Example: messages as JSON, or plain text"


@pytest.fixture(params=LOOKS)
def lab(request, visit):
    """The Templates tab with the model there; in the end the page still fits its width."""
    visitor = visit(**LOOKS[request.param])
    visitor.wait_for_model()
    visitor.open("Templates")
    visitor.page.locator(".templates-card").nth(2).wait_for()
    yield visitor
    assert visitor.fits()


def open_view(visitor, name: str):
    """A view by its tab; on a phone it may stand in the menu of tabs that have no room."""
    page = visitor.page
    tab = page.get_by_role("tab", name=name, exact=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # what an accordion holds is drawn only after it opened
        if tab.count() and tab.is_visible():
            tab.click()
            settle(page)
            return
        for menu in page.locator(".overflow-menu:visible").all():
            menu.locator("> button").click()
            hidden = menu.locator(".overflow-dropdown button", has_text=name)
            if hidden.count():
                hidden.first.click()
                settle(page)
                return
            menu.locator("> button").click()
        page.wait_for_timeout(200)
    raise AssertionError(f"no tab {name}")


def open_data(visitor, name: str):
    visitor.field("Start from").fill(name)
    visitor.page.get_by_role("option", name=f"Data set: {name}").first.click()
    visitor.page.locator(".lab-where", has_text="format").first.wait_for()


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
        assert cards.nth(number).locator(".badge").count() == 6
    picture(visitor, "templates", 1250)


def test_tokens_show_their_ids_and_a_pasted_line_is_rendered(visit):
    visitor = visit()
    visitor.wait_for_model()
    visitor.open("Templates")
    page = visitor.page
    page.get_by_label("Tokens", exact=True).first.check()
    page.locator(".templates-card .tokens").first.wait_for()
    chip = page.locator(".templates-card .tokens [title]").first
    assert any(character.isdigit() for character in chip.get_attribute("title"))
    visitor.field(EXAMPLE).fill("Hello <b>there</b>")
    page.locator(".templates-card", has_text="there").first.wait_for()
    assert page.locator(".templates-card b", has_text="there").count() == 0


def test_broken_json_is_said_in_a_sentence_and_nothing_is_lost(visit):
    visitor = visit()
    visitor.open("Templates")
    example = visitor.field(EXAMPLE)
    example.fill('{"messages": [')
    visitor.page.get_by_text("not valid JSON").first.wait_for()
    assert example.input_value() == '{"messages": ['


# The seven views, wide, on a phone, in the dark -----------------------------------------------------------------------


def test_data_is_pasted_and_its_columns_are_explained(lab, app):
    page = lab.page
    page.get_by_role("button", name="Add your own data").click()
    open_view(lab, "Paste")
    lab.field("Rows as JSON, JSON lines or CSV with a line of column names").fill("Ask,Reply\nOne and one?,Two\n")
    lab.field("Name").fill("odd")
    page.get_by_role("button", name="Add the rows").click()
    page.get_by_text("its rows are not understood yet").or_(page.get_by_text("It is selected")).first.wait_for()
    open_view(lab, "Columns, remove")
    page.locator(".lab-preview td", has_text="One and one?").first.wait_for()
    lab.choose("Prompt", "Ask")
    lab.choose("Answer", "Reply")
    page.locator(".lab-preview td", has_text="assistant: Two").wait_for()
    page.get_by_role("button", name="Read the rows this way").click()
    page.locator(".templates-card .trained", has_text="Two").first.wait_for()
    page.get_by_role("button", name="Remove this data set").click()
    page.get_by_role("button", name="Yes, remove it").click()
    page.get_by_text("was removed.").wait_for()


def test_rows_are_walked_through_searched_and_jumped_to(lab):
    page, example = lab.page, lab.field(EXAMPLE)
    open_data(lab, "instructions")
    first = example.input_value()
    page.locator("#lab-next").click()
    page.wait_for_function("([box, old]) => box.value != old", arg=[example.element_handle(), first])
    page.locator("#lab-back").click()
    page.wait_for_function("([box, old]) => box.value == old", arg=[example.element_handle(), first])
    lab.choose("Go to the row that is", "the longest")
    page.wait_for_function("([box, old]) => box.value != old", arg=[example.element_handle(), first])
    search = page.locator("#lab-search input, #lab-search textarea").first
    search.fill("zzz-nowhere")
    search.press("Enter")
    page.get_by_test_id("toast-body").filter(has_text="no row holds").wait_for()


def test_two_templates_are_compared_and_the_lesson_is_told(lab, picture):
    page = lab.page
    page.get_by_role("button", name="Lesson: the right weights, the wrong template").click()
    page.locator("#lab-lesson").click()
    card = page.locator(".templates-card", has_text="Alpaca and ChatML")
    card.wait_for()
    assert "### Response:" in "".join(card.locator("del").all_inner_texts())
    assert "<|im_start|>assistant" in "".join(card.locator("ins").all_inner_texts())
    assert "Name three colours of the rainbow." not in "".join(card.locator("del, ins").all_inner_texts())


def test_rows_are_shown_as_the_batch_the_trainer_sees(lab):
    page = lab.page
    open_data(lab, "instructions")
    open_view(lab, "As a batch")
    table = page.locator(".lab-batch")
    table.wait_for()
    assert table.locator("tr").count() == 4
    trained = table.locator("td.on").count()
    assert 0 < trained < table.locator("td").count()
    page.get_by_label("Prompt masked").uncheck()
    page.wait_for_function(f"document.querySelectorAll('.lab-batch td.on').length > {trained}")
    page.get_by_label("Packed").check()
    page.wait_for_function("document.querySelectorAll('.lab-batch tr').length < 4")


def test_the_linter_says_what_is_wrong_and_why(lab):
    page = lab.page
    open_view(lab, "Linter")
    page.get_by_text("tools are ignored", exact=False).or_(page.get_by_text("never shown")).first.wait_for()
    open_data(lab, "instructions")
    page.get_by_role("button", name="Check all rows").click()
    page.locator(".lint-tallies .templates-card").first.wait_for()


def test_the_report_counts_all_rows_and_splits_them(lab, app):
    page = lab.page
    open_data(lab, "instructions")
    open_view(lab, "Report and split")
    page.get_by_role("button", name="Start the report").click()
    page.locator("svg.report-chart").wait_for()
    assert "trained" in page.locator(".report-figures").inner_text()
    page.get_by_role("button", name="Split the data set into training, validation and test rows").click()
    page.get_by_role("button", name="Split and save").click()
    page.get_by_text("instructions-train", exact=False).first.wait_for()


def test_a_template_of_ones_own_is_drawn_as_it_is_written_and_saved(lab, app):
    page = lab.page
    open_view(lab, "Write your own")
    editor = page.locator(".cm-content").first
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("{% for m in messages %}<<{{ m.role }}>> {{ m.content }}\n{% endfor %}")
    page.locator(".templates-card:visible", has_text="<<user>>").wait_for()
    page.keyboard.insert_text("{% if %}")
    page.get_by_text("line 2", exact=False).first.wait_for()
    page.keyboard.press("Control+z")
    name = f"mine-{id(lab)}"
    lab.field("Name").fill(name)
    page.get_by_role("button", name="Save as mine").click()
    page.locator("#lab-templates", has_text=name).wait_for()
