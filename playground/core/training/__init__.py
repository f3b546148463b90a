"""The short LoRA fine-tune: rows to labelled examples, the loop, the truth check. Import from the modules."""
