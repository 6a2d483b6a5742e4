"""Protects a collection in a process of its own, to be killed: run by the chaos tests as a script.

python collection_stage.py SOURCE OUT SETTINGS, the last as JSON.
"""

from __future__ import annotations

import json
import sys

from actors.collections import protect

if __name__ == "__main__":
    protect(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
