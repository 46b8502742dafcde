"""What the answers of a reader change: the static prompt, and how prompts for single queries are made."""
