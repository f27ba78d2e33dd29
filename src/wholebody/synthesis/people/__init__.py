"""Who is in the picture: shapes, poses, hands."""
