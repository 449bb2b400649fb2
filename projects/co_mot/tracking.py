"""CO-MOT (arXiv 2305.12724): queries follow their objects from frame to frame, in sets that share an object.

Shape letters: T sets that are tracks, Q sets that detect, S queries of a set, D channels, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from detrex.layers import TrackInteraction
from detrex.modeling import Detector, LearnedSets, PostProcess, QueryGroup, SetsToGiven, SetsToOne
from detrex.modeling.decoder import DecoderOutput
from detrex.modeling.queries.group import MATCHING
from detrex.structures import BatchTargets, Instances, Pyramid, Sample


class TrackQueries(LearnedSets):
    """Learned sets of queries that detect, and the layers and settings that turn them into tracks.

    Args:
        num_queries, set_size, hidden_dim: Q, S and D.
        num_heads, ffn_dim: of the layers that update tracks between two frames.
        birth_score, keep_score: lowest score with which a detection becomes a track, and a track is seen.
        patience: number of frames for which a track that is not seen is kept.
        forget: probability that a track is forgotten from one frame to the next in training.
    """

    def __init__(
        self, num_queries: int = 60, set_size: int = 3, hidden_dim: int = 256, num_heads: int = 8,
        ffn_dim: int = 1024, birth_score: float = 0.5, keep_score: float = 0.5, patience: int = 20,
        forget: float = 0.1,
    ):  # fmt: skip
        super().__init__(num_queries, set_size, hidden_dim)
        self.birth_score, self.keep_score = birth_score, keep_score
        self.patience, self.forget = patience, forget
        self.interaction = TrackInteraction(hidden_dim, ffn_dim, num_heads)


@dataclass
class Tracks:
    """Contents (1, T * S, D) and boxes (1, T * S, 4) of sets, their objects, and how long each is unseen."""

    content: Tensor
    boxes: Tensor
    ids: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    count: int = 0  # ids given to objects of the video so far


class TrackingDetector(Detector):
    """Learns clips, the ``frames`` of samples; follows objects from one frame of a ``video`` to the next."""

    follows_videos = True
    tracks: Tracks | None = None  # of the video whose next frame is ``expected``
    expected: tuple[str, int] | None = None

    def losses(self, samples: list[Sample]) -> dict[str, Tensor]:
        """See :meth:`~detrex.modeling.Detector.losses`: means over frames. An image is a one-frame clip."""
        clips: list[list[Any]] = [list(sample.get("frames", [sample])) for sample in samples]
        images = self.preprocess([frame for clip in clips for frame in clip])
        memory, total, place = self.features(images)[1], defaultdict(list), 0
        for clip in clips:
            tracks = self._none()
            for frame in clip:
                targets = self._collate_targets([frame], images.of_image(place))
                ids = frame.get("tracks", torch.arange(len(targets))).tolist()
                losses, tracks = self._learn(memory.of_image(place), tracks, targets, ids)
                for name, value in losses.items():
                    total[name].append(value)
                place += 1
        unused = 0 * tracks.content.sum()  # for no next frame, but with gradients for distributed training
        return {name: torch.stack(values).mean() + unused for name, values in total.items()}

    def _learn(
        self, memory: Pyramid, tracks: Tracks, targets: BatchTargets, ids: list[int]
    ) -> tuple[dict[str, Tensor], Tracks]:
        queries, known = self.decoder.query_init, len(tracks.ids)
        followed = {i: ids.index(track) for i, track in enumerate(tracks.ids) if track in ids}
        queries.assignment = SetsToOne(queries.set_size, left_out=list(followed.values()))
        output = self._decode(memory, tracks, list(followed.items()))
        born = self.criterion.matcher(output.supervised[-1:], None, targets)  # detections of the last layer
        pairs = torch.stack([born.query // queries.set_size + known, born.object], 1)[:: queries.set_size]
        followers = [*enumerate(tracks.ids), *((i, ids[j]) for i, j in pairs.tolist())]
        remembered = (torch.rand(len(followers)) >= queries.forget).tolist()
        kept = [pair for pair, stays in zip(followers, remembered, strict=True) if stays]
        seen = torch.tensor([i in followed or i >= known for i, _ in kept], dtype=torch.bool)
        content, boxes = self._carry(tracks, output, [i for i, _ in kept], seen)
        return self.criterion(output.supervised, None, targets), Tracks(content, boxes, [t for _, t in kept])

    def detect_once(self, samples: list[Sample], postprocess: PostProcess) -> list[dict[str, Any]]:
        """See the base class; instances have ``track_ids``. Images without a video start without tracks."""
        return [self._follow(sample, postprocess) for sample in samples]

    def _follow(self, sample: Any, postprocess: PostProcess) -> dict[str, Any]:
        images, place = self.preprocess([sample]), (sample.get("video"), sample.get("frame", 0))
        tracks = self.tracks if self.tracks is not None and place == self.expected else self._none()
        output, queries = self._decode(self.features(images)[1], tracks), self.decoder.query_init
        scores = postprocess.class_score.probabilities(output.final.logits[0].float()).independent
        scores, boxes = (v.unflatten(0, (-1, queries.set_size)) for v in (scores, output.final.boxes[0]))
        best = torch.arange(len(scores)), scores.amax(2).argmax(1).cpu()  # the surest query of each set
        scores, boxes, known = scores[best], boxes[best], len(tracks.ids)
        certain, born = scores.amax(1).cpu(), torch.arange(len(scores)) >= known
        seen = certain >= torch.where(born, queries.birth_score, queries.keep_score)
        before = [*tracks.unseen, *(queries.patience,) * (len(seen) - known)]
        unseen = [0 if now else count + 1 for now, count in zip(seen.tolist(), before, strict=True)]
        numbers = torch.cat([torch.tensor(tracks.ids).long(), tracks.count + seen[known:].cumsum(0)])
        if place[0] is not None:
            kept = [i for i, count in enumerate(unseen) if count <= queries.patience]
            content, places = self._carry(tracks, output, kept, seen[kept])
            count = tracks.count + int(seen[known:].sum())
            self.tracks = Tracks(content, places, numbers[kept].tolist(), [unseen[i] for i in kept], count)
            self.expected = place[0], place[1] + 1
        assert postprocess.instance is not None
        (frame,) = self.frames([sample], images)
        best = postprocess.instance.best(scores[None, seen], boxes[None, seen])
        top, query, label = (values[0] for values in best)
        sure = top >= postprocess.instance.score_threshold
        found = clip_boxes_to_image(frame.boxes(boxes[seen][query[sure]]), frame.output)
        ids = numbers[seen].to(query.device)[query[sure]]
        return {"instances": Instances(frame.output, found, top[sure], label[sure], track_ids=ids)}

    def _none(self) -> Tracks:
        return Tracks(*(value[:, :0] for value in self.decoder.query_init.start()))

    def _decode(
        self, memory: Pyramid, tracks: Tracks, given: Sequence[tuple[int, int]] = ()
    ) -> DecoderOutput:
        assignment = SetsToGiven(self.decoder.query_init.set_size, given)
        group = QueryGroup(tracks.content, tracks.boxes, None, assignment, sees=(MATCHING,))
        return self.decoder(memory, None, [group])

    def _carry(
        self, tracks: Tracks, output: DecoderOutput, sets: list[int], seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Contents and boxes with which sets enter the next frame; those of unseen sets stay as they were."""
        queries = self.decoder.query_init
        entered = zip((tracks.content, tracks.boxes), queries.start(), strict=True)
        values = *(torch.cat(v, 1) for v in entered), output.content, output.final.boxes.detach()
        by_set = (v.unflatten(1, (-1, queries.set_size)) for v in values)
        content, boxes, after, found = (v[:, sets].flatten(1, 2) for v in by_set)
        after = queries.interaction(content, after, self.decoder.position.encode(found))
        now = seen.to(after.device).repeat_interleave(queries.set_size)[:, None]
        return torch.where(now, after, content), torch.where(now, found, boxes)
