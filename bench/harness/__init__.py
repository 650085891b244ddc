"""How everything is timed: one loop of stamps, and what its stamps say; and what a question prints and keeps."""
