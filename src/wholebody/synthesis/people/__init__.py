"""Who is drawn: shapes, poses, hands and faces.

A *population* (`draw`) is what the body file knows of plausible people; a *pose library* (`capture`) holds recorded
*clips*; *postures* are poses by procedure; *gestures* are those of hands.
"""
