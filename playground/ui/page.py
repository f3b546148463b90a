"""gradio's Blocks, in which an output that is left as it is costs nothing.

A handler that streams gives values for a few of its outputs; gradio fills in `skip()` for the rest, and then makes each
of those components once more, describes it (a JSON schema by pydantic) and keeps that for the visitor. With the forty
outputs of the Chat tab this held the server's one event loop for longer than the answers took to write: thirty
visitors got 16 answers a minute, and the decoder waited for its turn at the interpreter.
"""

import copy

import gradio as gr
from gradio.blocks import convert_component_dict_to_list

SKIP = gr.skip()


class Page(gr.Blocks):
    async def postprocess_data(self, block_fn, predictions, state) -> list:
        """What gradio's gives, worked out only for the outputs that change."""
        outputs = list(block_fn.outputs)
        if len(outputs) < 2 or block_fn.batch or block_fn.is_validator_function:
            return await super().postprocess_data(block_fn, predictions, state)
        values = predictions
        if isinstance(values, dict):
            values = [SKIP] * len(outputs) if values == SKIP else convert_component_dict_to_list(outputs, values)
        if not isinstance(values, list | tuple) or len(values) != len(outputs):
            return await super().postprocess_data(block_fn, predictions, state)  # it says what is wrong with them
        changed = [i for i, value in enumerate(values) if not _left(value)]
        data = [None if output.stateful else dict(SKIP) for output in outputs]
        if changed:
            some = copy.copy(block_fn)
            some.outputs = [outputs[i] for i in changed]
            given = [values[i] for i in changed]
            made = await super().postprocess_data(some, given if len(given) > 1 else given[0], state)
            for i, value in zip(changed, made, strict=True):
                data[i] = value
        return data


def _left(value) -> bool:
    return isinstance(value, dict) and value == SKIP
