"""Visual puzzles: pieces of pictures, videos and depths to be put in order, and the reward of an answer. Without PyTorch."""
