"""The app's entry for Hugging Face Spaces, and for `python app.py`: the same as `playground serve`."""

import sys

from playground.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
