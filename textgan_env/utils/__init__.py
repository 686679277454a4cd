"""Small things that every room uses: errors, files, the command line, signals."""
