"""See instruction tuning happen: templates, loss masks, small adapters and tool calls, in one Gradio app."""

__version__ = "0.1.0"
