"""What the papers train: targets, losses, batches."""
