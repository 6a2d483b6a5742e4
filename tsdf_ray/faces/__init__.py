"""Photos in: readers, labels, edits, splits."""
