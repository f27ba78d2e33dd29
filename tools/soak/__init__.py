"""Kill long jobs at random moments, take them up again, and compare with what undisturbed ones leave."""
