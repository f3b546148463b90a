"""A finished run taken elsewhere by clicks: its adapter pushed to a Hub (a stand-in on this machine), its notebook."""

import json
import re
from types import SimpleNamespace

import pytest

from tests.browser.test_train_after import downloaded, finished
from tests.hub import running

TOKEN, WRONG = "hf_right_4711", "hf_wrong_4711"
CELL = {"code": {"execution_count", "outputs"}, "markdown": set()}  # besides id, cell_type, metadata, source


@pytest.fixture(scope="module")
def world(start, models):
    """An app whose Hub is a stand-in that refuses one token, with a finished run of the tool recipe."""
    with running() as hub:
        hub.refused[WRONG] = 401
        app = start(PLAYGROUND_MODELS=str(models), HF_ENDPOINT=hub.url, HF_TOKEN="", HF_HUB_OFFLINE="0")
        yield SimpleNamespace(hub=hub, app=app, run=finished(app.home, "pushed", recipe="tool-calling"))


@pytest.fixture
def exporting(world, visit):
    """`exporting(**context)`: the export panel of the run, asked to push, with the repository filled in."""

    def exporting(**context):
        visitor = visit(world.app.url, **context)
        visitor.open("Fine-tune")
        visitor.page.locator(".run-state").get_by_text("pushed").first.wait_for()
        visitor.unfold("Export")
        visitor.choose("Export", "Push the adapter")
        visitor.field("Repository").fill("ada/pushed")
        return visitor

    return exporting


def kept(world) -> list[str]:
    """Files of the app's home, its log among them, that hold a token."""
    files = [path for path in world.app.home.rglob("*") if path.is_file()]
    return [str(path) for path in files if re.search(rb"hf_(right|wrong)_4711", path.read_bytes())]


def test_an_adapter_is_pushed_and_a_wrong_token_refused(world, exporting):
    visitor = exporting()
    page, token = visitor.page, visitor.field("Token")
    assert token.get_attribute("type") == "password"
    button = page.locator("button", has_text=re.compile(r"^\s*Export\s*$")).last
    button.click()
    page.get_by_test_id("toast-body").get_by_text("pushing needs a token with write access").wait_for()
    token.fill(WRONG)
    button.click()
    refused = f"{world.hub.url} answered with 401 for ada/pushed (the token may not write there)"
    page.get_by_test_id("toast-body").get_by_text(refused).wait_for()
    page.wait_for_function("(button) => !button.disabled", arg=button.element_handle())  # to be tried again
    assert not [path for path, _ in world.hub.requests if "/commit/" in path]

    token.fill(TOKEN)
    button.click()
    link = page.locator(".export a", has_text="/ada/pushed")
    link.wait_for()
    assert link.get_attribute("href") == f"{world.hub.url}/ada/pushed"
    assert world.hub.tokens == {WRONG, TOKEN}
    created = json.loads(next(body for path, body in world.hub.requests if path.endswith("/repos/create")))
    assert created.get("private") or created.get("visibility") == "private"
    sent = world.hub.committed()
    adapter = world.run.folder / "adapter"
    assert sent["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert "template_text" in json.loads(sent["playground.json"])
    card = sent["README.md"].decode()
    assert card.startswith("---\nlibrary_name: peft\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n")
    assert "playground train --recipe tool-calling" in card
    base = json.loads(sent["adapter_config.json"])["base_model_name_or_path"]
    assert base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    line = page.locator(".command").filter(has=page.get_by_text("The same from the command line")).last
    assert line.locator("textarea, input").input_value() == "playground export pushed --as hub --repo ada/pushed"
    assert kept(world) == []


def test_on_a_phone_the_fields_fit_and_the_notebook_trains_the_same_recipe(exporting, tmp_path):
    visitor = exporting(viewport={"width": 390, "height": 844}, color_scheme="dark")
    fields = [visitor.field("Repository"), visitor.field("Token"), visitor.page.get_by_label("Private")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in (field.bounding_box() for field in fields))
    assert visitor.fits()
    file = downloaded(visitor, "Notebook")
    assert file.suggested_filename == "pushed.ipynb"
    file.save_as(tmp_path / "pushed.ipynb")
    notebook = json.loads((tmp_path / "pushed.ipynb").read_text(encoding="utf-8"))
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)  # from here on, cells have ids
    for cell in notebook["cells"]:
        assert set(cell) == {"id", "cell_type", "metadata", "source"} | CELL[cell["cell_type"]]
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert "--recipe tool-calling" in code
