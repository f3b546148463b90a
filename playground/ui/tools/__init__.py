"""The parts of the Tools tab."""
