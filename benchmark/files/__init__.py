"""Files that are whole or not there: guarded JSON, chunks, new folders, progress."""
