"""SAM as Semantic-SAM's authors repeated it: Swin-L, three masks for each click; the best learns.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/semantic_sam/configs/semantic_sam_swin_large_three_masks_sa1b.py \\
        dataloader.root=/path/to/sa1b model.backbone.pretrained=true \\
        dataloader.coco_root=/path/to/coco

Each click has one true mask, and in every layer the query that costs least by mask alone answers for it. No
result of this configuration is among the facts that this project has. This config builds 222.41 M parameters.
"""

from .semantic_sam_swin_large_sa1b import dataloader, model, optimizer, scheduler, train

model.prompts.granularities = 3
model.levels = [0, 1, 2]
model.drawing.max_masks = 1
model.criterion.match_every_layer = True
model.criterion.matcher.box_cost = 0.0
model.criterion.matcher.giou_cost = 0.0

train.output_dir = "output/semantic_sam_swin_large_three_masks_sa1b"
