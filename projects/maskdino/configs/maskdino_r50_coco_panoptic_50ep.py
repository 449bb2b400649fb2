"""Mask DINO, ResNet-50, COCO panoptic segmentation, 50 epochs; instances and semantics come with it.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_r50_coco_panoptic_50ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
Published result (arXiv 2206.02777): 53.0 PQ, 48.8 box AP, 44.3 mask AP on val2017 (the published table has
the two APs swapped), 52 M parameters, 286 GFLOPs; this config builds 52.09 M parameters.
Checkpoint:
https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/maskdino_r50_50ep_300q_hid2048_3sd1_panoptic_pq53.0.pth
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import PanopticInference, SemanticInference

from .maskdino_r50_coco_instance_50ep import model, optimizer, scheduler, train

dataloader = get_config("common/data/coco_panoptic.py").dataloader
# As published: segments that a crop cuts away stay objects, with empty masks.
dataloader.train.mapper.drop_invisible = False

model.num_classes = 133  # ordered by id: 80 things, then 53 kinds of stuff
model.decoder.query_init.box_init = None
model.postprocess.thing_classes = list(range(80))
model.postprocess.panoptic = L(PanopticInference)(score_threshold=0.25, overlap_threshold=0.8)
model.postprocess.semantic = L(SemanticInference)(resize_masks=True)

train.output_dir = "output/maskdino_r50_coco_panoptic_50ep"
