"""Objects of made videos keep their numbers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detrex.data import DataError, EvalMapper
from detrex.modeling import InstanceInference, PostProcess
from detrex.predict import Predictor
from detrex.predict.tracking import ObjectTracks
from detrex.predict.video import FrameFolder, VideoReader, VideoWriter
from detrex.structures import Categories, Instances, RunLengthMasks, boxes_from_masks

pytest.importorskip("trackers")
SIZE = (96, 128)
# Of each shape: class, colour, place in the first frame (y, x), and its step from frame to frame.
SHAPES = [
    (0, (230, 20, 20), (6, 4), (0, 2)),
    (0, (230, 20, 20), (40, 100), (0, -2)),
    (1, (20, 20, 230), (70, 10), (0, 3)),
    (1, (20, 20, 230), (66, 112), (-1, 0)),
]
SIDE = 14


def place(shape, t):
    _, _, (y, x), (down, right) = shape
    return y + t * down, x + t * right


def frame(t):
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    for shape in SHAPES:
        y, x = place(shape, t)
        pixels[y : y + SIDE, x : x + SIDE] = shape[1]
    return pixels


class ColourDetector(nn.Module):
    """Finds red and blue squares; in some frames it is unsure of one, misses one, or sees one twice."""

    inference = None
    follows_videos = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.postprocess = PostProcess(InstanceInference())
        self.frames = 0

    def detect(self, samples, postprocess):
        return [{"instances": self._found(sample["image"], postprocess)} for sample in samples]

    def _found(self, image, postprocess):
        t, self.frames = self.frames, self.frames + 1
        red, blue = ((image[c].int() - image[2 - c].int()) > 90 for c in (0, 2))
        masks, labels = [], []
        for shape in SHAPES:
            y, x = place(shape, t)
            mask = torch.zeros(SIZE, dtype=torch.bool)
            mask[y : y + SIDE, x : x + SIDE] = (red, blue)[shape[0]][y : y + SIDE, x : x + SIDE]
            assert mask.sum() > 100, "the video shows the shape"
            masks.append(mask)
            labels.append(shape[0])
        scores = [0.9, 0.8 if t % 7 else 0.2, 0.85, 0.95]
        if t == 9:
            del masks[0], labels[0], scores[0]
        if t % 5 == 0:
            masks.append(masks[-1])
            labels.append(labels[-1])
            scores.append(0.7)
        kept = [i for i in range(len(masks)) if scores[i] >= postprocess.instance.score_threshold]
        stacked = torch.stack([masks[i] for i in kept])
        found = Instances(
            SIZE,
            boxes_from_masks(stacked, inclusive=False),
            torch.tensor([scores[i] for i in kept]),
            torch.tensor([labels[i] for i in kept]),
            RunLengthMasks.encode(stacked),
        )
        return found[found.scores.argsort(descending=True)]


def numbers_of(results):
    """The numbers that each shape had in the frames, and how often it was there."""
    numbers = [[] for _ in SHAPES]
    for t, result in enumerate(results):
        for found in result:
            centre = found.mask.nonzero().float().mean(0).tolist()
            distances = [
                abs(place(s, t)[0] + SIDE / 2 - centre[0]) + abs(place(s, t)[1] + SIDE / 2 - centre[1])
                for s in SHAPES
            ]
            nearest = int(np.argmin(distances))
            assert distances[nearest] < 4 and found.class_index == SHAPES[nearest][0]
            numbers[nearest].append(found.track_id)
    return numbers


@pytest.fixture
def predictor():
    categories = Categories.from_names(["red", "blue"])
    return Predictor(ColourDetector(), EvalMapper(SIZE[0], SIZE[1]), categories)


@pytest.mark.parametrize("folder", [False, True])
def test_nothing_changes_its_number_where_nothing_crosses(predictor, tmp_path, folder):
    if folder:
        for t in range(25):
            Image.fromarray(frame(t)).save(tmp_path / f"{t:03d}.png")
        reader = FrameFolder(sorted(tmp_path.iterdir()))
    else:
        with VideoWriter(tmp_path / "shapes.mp4", 25, SIZE) as writer:
            for t in range(25):
                writer.write(Image.fromarray(frame(t)))
        reader = VideoReader(tmp_path / "shapes.mp4")
    with reader:
        results = list(predictor.track(reader, score_threshold=0.5, frame_rate=reader.fps))
    numbers = numbers_of(results)
    assert [len(set(track)) for track in numbers] == [1, 1, 1, 1]
    assert len({track[0] for track in numbers}) == 4
    # The first is missed once; the second one's track begins when it is sure, and goes on when it is not.
    assert [len(track) for track in numbers] == [24, 23, 25, 25]
    tracked = results[3]
    assert (
        tracked.to_coco()[0]["track_id"]
        == tracked[0].track_id
        == tracked.to_dict()["instances"][0]["track_id"]
    )
    assert tracked.draw("instance").size[0] >= SIZE[1]


def test_an_object_that_leaves_does_not_hand_its_number_on():
    tracks = ObjectTracks([0.5], 10.0)
    box = torch.tensor([[10.0, 10, 30, 30]])
    there = Instances((96, 128), box, torch.tensor([0.9]), torch.tensor([0]))
    nothing = there[torch.tensor([False])]
    first = tracks.update(there).track_ids.tolist()
    assert all(len(tracks.update(nothing)) == 0 for _ in range(15))  # more than a second
    tracks.update(there)
    again = tracks.update(there).track_ids.tolist()
    assert first == [1] and again == [2]


def test_what_cannot_be_tracked_is_said(predictor, tmp_path):
    with pytest.raises(ValueError, match="'instance' must be among the tasks"):
        predictor.track([frame(0)], tasks=["semantic"])
    with pytest.raises(ValueError, match="frame_rate=0"):
        predictor.track([frame(0)], frame_rate=0)
    Image.fromarray(frame(0)).save(tmp_path / "1.png")
    Image.fromarray(frame(0)[:50]).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"2\.png has 50 x 128 pixels .* first frame has 96 x 128"):
        list(FrameFolder(sorted(tmp_path.iterdir())))
