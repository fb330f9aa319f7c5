"""One file a command: its summary, its arguments, and what it calls. Heavy imports wait until a command runs."""
