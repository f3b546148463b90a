"""What lives as long as the process: models, the decoding engine, training runs, votes. No Gradio here."""
