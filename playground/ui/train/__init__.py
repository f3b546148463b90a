"""The parts of the Fine-tune tab; train_tab.py puts them together."""
