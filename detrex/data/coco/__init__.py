"""COCO files: one reader of their rules for training, evaluation, drawing and checks."""
