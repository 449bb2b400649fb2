"""H-Deformable-DETR, Swin-L, 900 queries, COCO detection, 36 epochs.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/h_deformable_detr/configs/h_deformable_detr_swin_large_900q_coco_36ep.py \\
        dataloader.root=/path/to/coco model.backbone.pretrained=true

`model.backbone.pretrained=true`: see `configs/common/coco_run.py`.
The backbone starts from ImageNet-22k. Its drop path is H-DETR's.
Published result (detrex zoo): 57.7 box AP on val2017; this config builds 218.21 M parameters.
"""

from .h_deformable_detr_swin_large_coco_36ep import dataloader, model, optimizer, scheduler, train

model.decoder.query_init.num_queries = 900
model.postprocess.instance.max_detections = 300

train.output_dir = "output/h_deformable_detr_swin_large_900q_coco_36ep"
