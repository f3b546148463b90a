"""The only importer of Gradio: one file per tab, and tabs do not import each other."""
