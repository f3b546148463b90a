"""Figures beside named peers, one module per bench; `playground bench NAME` runs it."""
