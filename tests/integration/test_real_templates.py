"""Every chat template of the shared collection, through the processes that render strangers' templates."""

from playground.core import templates, tool_formats
from playground.core.messages import Conversation
from playground.core.templates import load, render
from playground.errors import PlaygroundError
from tests.core.test_templates import ANSWER, CALLING, SHARED, USER, needs_shared, pieces

TOOL = CALLING.tools[0]


ID = "abcdefghi"


FIVE_KINDS = {
    "single turn": Conversation([USER]),
    "system and user": Conversation([{"role": "system", "content": "Be brief."}, USER]),
    "multi-turn": Conversation([USER, ANSWER, {"role": "user", "content": "Bye"}, ANSWER]),
    "tools": Conversation(
        [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "id": ID, "function": {"name": "calculator", "arguments": {"expression": "1"}}}
                ],
            },
            {"role": "tool", "content": "1", "name": "calculator", "tool_call_id": ID},
            ANSWER,
        ],
        [TOOL],
    ),
    "reasoning": Conversation([USER, {**ANSWER, "reasoning_content": "Hm."}]),
}

# Its macros read a loop variable of their caller and it assigns to a message: not Jinja, whatever engine ran it.
NOT_JINJA = {("MiroThinker.jinja", kind) for kind in ("multi-turn", "tools", "reasoning")}


@needs_shared
def test_every_real_template_renders_or_refuses_in_its_own_words():
    files = sorted((SHARED / "chat_templates").rglob("*.jinja"))
    assert len(files) >= 179
    failed, refused, reshaped = [], 0, 0
    for file in files:
        template = load(str(file))
        for kind, conversation in FIVE_KINDS.items():
            given = Conversation(conversation.messages, conversation.tools, {"bos_token": "<s>", "eos_token": "</s>"})
            try:
                rendered = render(template, given, spans=kind == "tools")
            except PlaygroundError as error:
                if "refuses this conversation" in str(error):
                    refused += 1
                elif (file.name, kind) not in NOT_JINJA:
                    failed.append(f"{kind}: {error}")
            else:
                reshaped += bool(rendered.shape)
                assert "".join(text for text, _, _ in pieces(rendered)) == rendered.text
    assert not failed
    assert (refused, reshaped) == (31, 38)


REAL = {
    "llamacpp/Kimi-K2-Instruct": "kimi_k2",
    "llamacpp/openai-gpt-oss-120b": "gpt_oss",
    "llamacpp/mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "llamacpp/LFM2-8B-A1B": "lfm2",
    "trl/deepseekv3": "deepseek_v3",
    "vllm/tool_chat_template_llama4_pythonic": "pythonic",
    "vllm/tool_chat_template_phi4_mini": "phi4_mini",
    "vllm/tool_chat_template_xlam_qwen": "xlam",
    "llamacpp/ByteDance-Seed-OSS": "seed_oss",
    "llamacpp/deepseek-ai-DeepSeek-V3.1": "deepseek_v31",
    "llamacpp/deepseek-ai-DeepSeek-V3.2": "deepseek_v32",
    "llamacpp/deepseek-ai-DeepSeek-V4": "deepseek_v32",
    "llamacpp/CohereForAI-c4ai-command-r7b-12-2024-tool_use": "cohere",
    "llamacpp/CohereForAI-c4ai-command-r-plus-tool_use": "command_r",
    "llamacpp/Apertus-8B-Instruct": "apertus",
    "llamacpp/GigaChat3-10B-A1.8B": "gigachat",
    "llamacpp/GigaChat3.1-10B-A1.8B": "gigachat",
    "llamacpp/meetkai-functionary-medium-v3.1": "functionary_v31",
    "llamacpp/meetkai-functionary-medium-v3.2": "functionary_v32",
    "llamacpp/google-gemma-4-31B-it": "gemma4",
    "vllm/tool_chat_template_gemma4": "gemma4",
    "llamacpp/HuggingFaceTB-SmolLM3-3B": None,
}


@needs_shared
def test_the_formats_of_real_templates():
    folder = SHARED / "chat_templates"
    found = {name: tool_formats.for_template(templates.load(str(folder / f"{name}.jinja"))) for name in REAL}
    assert {name: format.NAME if format else None for name, format in found.items()} == REAL
