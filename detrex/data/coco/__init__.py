"""COCO files: one implementation of their rules for training, evaluation, drawing and checks."""
