"""People in pictures: finding them, the predictor, keypoints and refining."""
