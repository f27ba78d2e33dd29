"""What only the embedded size `t` needs."""
