"""What a prediction becomes: files that appear whole, and pictures to look at."""
