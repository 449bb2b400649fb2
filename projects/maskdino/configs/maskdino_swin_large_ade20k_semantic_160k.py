"""Mask DINO, Swin-L, ADE20K semantic segmentation, 160,000 iterations of 16 crops of 640 x 640.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/maskdino/configs/maskdino_swin_large_ade20k_semantic_160k.py \\
        dataloader.root=/path/to/ADEChallengeData2016 model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `maskdino_r50_coco_instance_50ep.py`.
The model of `maskdino_r50_ade20k_semantic_160k.py` with the larger backbone; crops of 640 pixels are usual
for it. The paper's best result (arXiv 2206.02777), 60.8 mIoU, is of such a model that was trained on
Objects365 before, with larger images. Its settings are not all known, and no weights of it were published,
so that this row is no reproduction; this config builds 215.31 M parameters.
"""

from detrex.config import LazyCall as L
from detrex.modeling import SwinBackbone

from .maskdino_r50_ade20k_semantic_160k import dataloader, model, optimizer, scheduler, train

model.backbone = L(SwinBackbone)(
    name="swin_large_patch4_window12_384.ms_in22k",
    strides=[4, 8, 16, 32],
    pretrained=False,
    options=dict(drop_path_rate=0.3),
)

dataloader.train.mapper.crop_size = 640
dataloader.train.mapper.sizes = [640 * tenth // 10 for tenth in range(5, 21)]
dataloader.train.mapper.max_size = 2560
dataloader.test.mapper.size = 640
dataloader.test.mapper.max_size = 2560

train.output_dir = "output/maskdino_swin_large_ade20k_semantic_160k"
