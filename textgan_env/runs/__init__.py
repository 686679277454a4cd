"""Run folders: checkpoints, logs, and loading them again."""
