"""The loop that trains every agent, and what agents share."""
