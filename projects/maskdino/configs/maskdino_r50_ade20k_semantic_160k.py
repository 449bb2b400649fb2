"""Mask DINO, ResNet-50, ADE20K semantic segmentation, 160,000 iterations of 16 crops of 512 x 512.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_ade20k_semantic_160k.py \\
        dataloader.root=/path/to/ADEChallengeData2016 model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Queries are learned, not selected; classes exclude one another (softmax), with one for "no object". The data:
see `configs/common/data/ade20k_semantic.py`. The published run lowered its learning rate in steps, too; where
they lay is not certain, nor is every detail of its augmentation.
Published result (arXiv 2206.02777): 48.7 mIoU on the validation images; this config builds 43.81 M
parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_r50_50ep_100q_celoss_hid1024_3s_semantic_ade20k_48.7miou.pth
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import LearnedBoxes, SemanticInference, SoftmaxScore

from .models.maskdino_r50 import model

dataloader = get_config("common/data/ade20k_semantic.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").ade20k_160k
train = get_config("common/train.py").train

model.num_classes = 150
model.class_score = L(SoftmaxScore)(focal_cost=True)
model.encoder.strides = [8, 16, 32]
model.encoder.ffn_dim = 1024
model.decoder.layers.num_levels = 3
model.decoder.query_init = L(LearnedBoxes)(num_queries=100, hidden_dim="${..layers.hidden_dim}")
model.denoising.supervise_initial = False
model.postprocess.instance = None
model.postprocess.semantic = L(SemanticInference)(resize_masks=False)

train.output_dir = "output/maskdino_r50_ade20k_semantic_160k"
train.max_iter = 160000
