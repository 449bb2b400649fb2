"""OpenSeeD, Swin-L, ADE20K semantic segmentation by words.

    python tools/train_net.py --num-gpus 8 \\
        --config-file projects/openseed/configs/openseed_swin_large_ade20k_semantic.py \\
        dataloader.root=/path/to/ADEChallengeData2016 model.backbone.pretrained=true

Weights of such a model were released; a result is not among the facts that this project has, nor are the
length and the crops of its training, which here are those of `maskdino_swin_large_ade20k_semantic_160k.py`.
All classes of the semantic data are stuff, so that the queries for it answer alone. This config builds
286.44 M parameters.
"""

from detrex.config import get_config

from .models.openseed_swin_large import model
from .openseed_swin_tiny_coco_panoptic import optimizer, train

dataloader = get_config("common/data/ade20k_semantic.py").dataloader
dataloader.train.mapper.crop_size = 640
dataloader.train.mapper.sizes = [640 * tenth // 10 for tenth in range(5, 21)]
dataloader.train.mapper.max_size = 2560
dataloader.test.mapper.size = 640
dataloader.test.mapper.max_size = 2560
scheduler = get_config("common/schedule.py").ade20k_160k

model.vocabulary.style = "plain"
model.postprocess.instance = model.postprocess.panoptic = None

train.max_iter = 160000
train.output_dir = "output/openseed_swin_large_ade20k_semantic"
