"""Text to tokens and named splits."""
