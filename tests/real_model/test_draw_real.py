"""A pipeline of diffusers itself, tiny and untrained, saved, loaded and asked for a picture by the tool."""

import json

import pytest

from playground.core import tools
from playground.core.tools import ToolError
from playground.errors import PlaygroundError
from playground.services import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[images]'")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    made = tmp_path_factory.mktemp("image-model")
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"{letter}</w>" for letter in words[2:]]
    (made / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (made / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    blocks = {"block_out_channels": (32, 64), "norm_num_groups": 8}
    unet = diffusers.UNet2DConditionModel(
        **blocks, layers_per_block=1, sample_size=16, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        **blocks, latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(made / "vocab.json"), str(made / "merges.txt"), model_max_length=77),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(made / "saved", safe_serialization=True)
    return made / "saved"


def test_a_real_pipeline_draws_and_stops(folder):
    pipeline = draw.Studio().begin(str(folder)).result(120)
    result = draw.make(pipeline, "tiny", 2).run(prompt="a cat")
    assert (result["size"], result["steps"]) == ("32 x 32", 2)
    assert "data:image/jpeg;base64," in tools.picture(result)["svg"]
    with pytest.raises(ToolError, match="stopped before"):
        draw.make(pipeline, "tiny", 2, lambda: lambda: True).run(prompt="a cat")
    again = draw.make(pipeline, "tiny", 1).run(prompt="a cat")  # an ended picture leaves the pipeline whole
    assert again["steps"] == 1


def test_a_folder_without_its_weights_is_said(folder, tmp_path):
    (tmp_path / "model_index.json").write_bytes((folder / "model_index.json").read_bytes())
    with pytest.raises(PlaygroundError, match="cannot be loaded as an image model"):
        draw.load_pipeline(str(tmp_path))
