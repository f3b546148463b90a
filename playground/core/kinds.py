"""What the values of a run's JSON should be, so that one odd value takes nothing from what stands beside it.

A run's folder may come from another version, another place or a hand that edited it. Null says nothing, as if the key
were not there; of a key that is not listed any value is in order.
"""

NUMBER = (int, float)
ESTIMATE = dict.fromkeys(("total", "seconds"), NUMBER)  # of core.estimate: bytes, seconds
# playground.json, which stands beside the weights of an adapter or of a fully tuned model.
ABOUT = {
    **dict.fromkeys(("template_name", "template_text", "template_hash", "mask_rule", "method"), str),
    **dict.fromkeys(("base_model", "base_revision", "data_hash"), str),
    **dict.fromkeys(("loss", "eval_loss", "steps", "best_step", "peak_memory"), NUMBER),
    **dict.fromkeys(("config", "scores", "versions"), dict),
    "estimate": ESTIMATE,
}
# One line of events.jsonl.
EVENT = {
    **dict.fromkeys(("kind", "state", "sentence", "reason", "prompt", "text", "summary"), str),
    **dict.fromkeys(("time", "step", "steps", "loss", "eval_loss", "lr", "grad_norm"), NUMBER),
    **dict.fromkeys(("tokens_per_second", "memory", "eta", "best_step", "best_loss", "trainable"), NUMBER),
    "estimate": ESTIMATE,
}


def sound(values: dict, kinds: dict) -> dict:
    """`values` without those that are not of their kind: a type, several, or the kinds of what an object holds."""
    kept = {}
    for key, value in values.items():
        kind = kinds.get(key, object)
        if isinstance(kind, dict) and isinstance(value, dict):
            kept[key] = sound(value, kind)
        elif not isinstance(kind, dict) and isinstance(value, kind):
            kept[key] = value
    return kept
