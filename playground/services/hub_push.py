"""An adapter on the Hugging Face Hub, with a model card made of its run card. The token is used once and not kept."""

import json
import os
import re
from pathlib import Path

from playground.core import run_card
from playground.errors import PlaygroundError
from playground.services import runs
from playground.services.runs import Run

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
FILES = (
    "adapter_*.json",
    "adapter_*.safetensors",
    "playground.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "*.jinja",
)


def push(run: Run, adapter: Path, base: str, repo: str, token: str = "", private: bool = True) -> str:
    """Create the repository if need be and commit the adapter to it; returns its address.

    `base` is the base model's id on the Hub, or any other name. `token` is the form's; without one HF_TOKEN is taken,
    except on a Space, where that is not the visitor's.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    repo = repo.strip()
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise PlaygroundError(f"write the repository as owner/name, as in ada/{run.name}; got {repo[:80]!r}")
    token = token.strip() or ("" if os.environ.get("SPACE_ID") else os.environ.get("HF_TOKEN", ""))
    if not token:
        raise PlaygroundError(
            "pushing needs a token with write access: make one at https://huggingface.co/settings/tokens and put it in "
            "the form, or in the variable HF_TOKEN"
        )
    api = huggingface_hub.HfApi(endpoint=constants.ENDPOINT, token=token)
    operations = [
        huggingface_hub.CommitOperationAdd(file.name, str(file))
        for pattern in FILES
        for file in sorted(adapter.glob(pattern))
        if file.name != "adapter_config.json"
    ]
    texts = {"adapter_config.json": _config(adapter, base), "README.md": model_card(run, base)}
    operations += [huggingface_hub.CommitOperationAdd(name, text.encode()) for name, text in texts.items()]
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, operations, commit_message=f"Adapter of the run {run.name}")
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        why = " (the token may not write there)" if status in (401, 403) else ""
        raise PlaygroundError(f"{constants.ENDPOINT} answered with {status} for {repo}{why}") from None
    except Exception as error:  # noqa: BLE001 - each version of the client has its own exceptions
        reason = (str(error).splitlines() or [type(error).__name__])[0].replace(token, "…")
        raise PlaygroundError(f"pushing to {constants.ENDPOINT} failed: {reason[:300]}") from None
    return str(address)


def _config(adapter: Path, base: str) -> str:
    """adapter_config.json with the base as peft finds it on the Hub."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return json.dumps({**config, "base_model_name_or_path": base}, indent=2) + "\n"


def model_card(run: Run, base: str, merged: bool = False) -> str:
    """README.md of a model repository: metadata, how to load it, and the run card."""
    about, settings = run.about, run.settings
    template = str(about.get("template_name") or settings.get("template", ""))
    lines = ["---", "library_name: transformers" if merged else "library_name: peft"]
    if REPO.fullmatch(base):
        lines.append(f"base_model: {base}")
    lines += ["pipeline_tag: text-generation", "tags:", "- lora", "- instruction-tuning-playground", "---", ""]
    card = run_card.markdown(runs.card(run))
    where = "chat_template.jinja" if merged else "playground.json"
    use = f"Trained with the chat template `{template}`; its text is in `{where}`. Prompt it with that one.\n"
    return "\n".join(lines) + f"{use}\n{card}"
