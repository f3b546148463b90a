"""Models are read one at a time in a process.

transformers replaces methods of its own classes while `from_pretrained` runs (`tie_weights`, for one) and puts back
what it found. Two at once put back each other's replacement, and from then on no head is tied to its embeddings.
"""

import threading

TURN = threading.Lock()
