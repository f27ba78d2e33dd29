"""What our own synthetic truth trains: targets, losses, batches."""
