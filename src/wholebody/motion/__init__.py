"""From what networks say of single frames to motion: who is who, one shape, smooth poses, one camera, the floor."""
