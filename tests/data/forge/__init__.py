"""Sets forged from made-up people in their exact form on disk. Shares no code with the readers."""
