"""People in pictures: finding them, the predictor, keypoints and refining."""

MIN_QUALITY = 0.5
"""Of a fit, from which it becomes a label unless asked otherwise."""
