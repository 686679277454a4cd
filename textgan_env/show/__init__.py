"""Looking at finished runs: loading, traces, the report page, the live page."""
