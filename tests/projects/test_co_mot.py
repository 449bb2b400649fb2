"""CO-MOT (arXiv 2305.12724): which queries answer for which objects, and which tracks go on."""

import csv
import json
from pathlib import Path

import pytest
import torch

from detrex.cli.commands.train import parse_arguments, run
from detrex.config import LazyConfig, instantiate
from detrex.data.moving_shapes import ensure_moving_shapes
from detrex.modeling import SetsToGiven, SetsToOne
from detrex.predict import load
from tests.config_files import ROOT, config_of

CONFIG = ROOT / "projects/co_mot/configs/co_mot_shapes.py"
SIZE, FRAMES, SETS = 64, 4, 5
TINY = [
    "dataloader.splits={train: 2, val: 2}",
    f"dataloader.image_size={SIZE}",
    f"dataloader.frames={FRAMES}",
    "model.encoder.num_layers=1",
    "model.decoder.layers.num_layers=2",
    f"model.decoder.query_init.num_queries={SETS}",
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "moving"
    return Path(ensure_moving_shapes(str(root), {"train": 2, "val": 2}, FRAMES, SIZE))


@pytest.fixture(scope="module")
def config(videos):
    return LazyConfig.apply_overrides(config_of(CONFIG), [*TINY, f"dataloader.root={videos}"])


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    made = instantiate(config.model)
    for heads in made.decoder.heads.sets:  # boxes and scores that differ
        torch.nn.init.normal_(heads.box.layers[-1].weight, std=0.3)
        torch.nn.init.normal_(heads.classes.weight, std=0.3)
    return made


def batches(config, name: str) -> list:
    node = LazyConfig.apply_overrides(config, [f"dataloader.{name}.num_workers=0"]).dataloader[name]
    return next(iter(instantiate(node)))


def tracks_of(model, sample) -> list[int]:
    return model([sample])[0]["instances"].track_ids.tolist()


def test_sets_are_matched_by_their_worst_query():
    cost = torch.tensor([[0.0, 9, 9], [0.2, 9, 9], [9, 0.0, 9], [9, 0.9, 9], [0.1, 9, 0.5], [0.1, 9, 0.5]])
    ((query, matched),) = SetsToOne(2).pairs([cost], [3])
    assert set(zip(query.tolist(), matched.tolist(), strict=True)) == {
        (0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)
    }  # fmt: skip
    last = SetsToOne(2, left_out=[2]).at_stage(1, 2)
    ((query, matched),) = last.pairs([cost], [3])
    assert set(zip(query.tolist(), matched.tolist(), strict=True)) == {(4, 0), (5, 0), (2, 1), (3, 1)}
    ((_, matched),) = SetsToOne(2, left_out=[2]).at_stage(0, 2).pairs([cost], [3])
    assert set(matched.tolist()) == {0, 1, 2}


def test_given_objects_go_to_all_queries_of_their_sets():
    ((query, matched),) = SetsToGiven(3, [(2, 0), (0, 4)]).pairs([None], [5])
    assert query.tolist() == [6, 7, 8, 0, 1, 2] and matched.tolist() == [0, 0, 0, 4, 4, 4]
    ((query, matched),) = SetsToGiven(3).pairs([None], [5])
    assert len(query) == len(matched) == 0


def test_tracks_keep_their_objects_in_training(config, model):
    model.decoder.query_init.forget = 0.0
    given = []  # of each frame, pairs of the number of a track and of its object
    model.decoder.register_forward_pre_hook(
        lambda _, arguments: given.append(arguments[2][0].assignment.given.tolist())
    )
    samples = batches(config, "train")
    losses = model.train()(samples)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert len(given) == sum(len(sample["frames"]) for sample in samples)
    for number, sample in enumerate(samples):
        seen: set[int] = set()
        for frame, pairs in zip(sample["frames"], given[number * FRAMES :], strict=False):
            tracks = frame["tracks"].tolist()
            assert {tracks[j] for _, j in pairs} == seen & set(tracks)
            assert len({i for i, _ in pairs}) == len(pairs)
            seen |= set(tracks)


def test_what_is_forgotten_is_detected_anew(config, model):
    model.decoder.query_init.forget = 1.0
    given = []
    model.decoder.register_forward_pre_hook(
        lambda _, arguments: given.append(len(arguments[2][0].assignment.given))
    )
    losses = model.train()(batches(config, "train"))
    assert set(given) == {0} and all(value.isfinite() for value in losses.values())


def test_an_image_is_a_clip_of_one_frame(config, model):
    sample = batches(config, "train")[0]
    sample.pop("frames")
    losses = model.train()([sample])
    assert set(losses) == {f"loss_{kind}{suffix}" for kind in ("ce", "bbox", "giou") for suffix in ("", "_0")}


def test_tracks_go_on_from_frame_to_frame_and_end_with_the_video(config, model):
    queries = model.eval().decoder.query_init
    queries.birth_score, queries.keep_score = 0.0, 0.0
    frames = batches(config, "test")  # two videos
    with torch.inference_mode():
        found = [tracks_of(model, frame) for frame in frames[: FRAMES + 1]]
    for number in range(FRAMES):  # those of the frame before, and new ones
        assert sorted(found[number]) == list(range(1, SETS * (number + 1) + 1))
    assert sorted(found[FRAMES]) == list(range(1, SETS + 1))


def test_a_track_without_its_object_is_kept_for_some_frames(config, model):
    queries = model.eval().decoder.query_init
    queries.birth_score, queries.keep_score, queries.patience = 0.0, 2.0, 2
    frames = batches(config, "test")[:4]
    kept = []
    with torch.inference_mode():
        for frame in frames:
            assert len(tracks_of(model, frame)) == SETS  # only new ones have an object
            kept.append(len(model.tracks.ids))
    assert kept == [SETS, 2 * SETS, 3 * SETS, 3 * SETS]


def test_images_of_no_video_leave_the_tracks_alone(config, model):
    queries = model.eval().decoder.query_init
    queries.birth_score = 0.0
    first, second = batches(config, "test")[:2]
    alone = {key: value for key, value in second.items() if key not in ("video", "frame")}
    with torch.inference_mode():
        model([first])
        before = model.tracks
        assert sorted(tracks_of(model, alone)) == list(range(1, SETS + 1))
    assert model.tracks is before


def test_results_have_the_settings_of_postprocessing(config, model):
    model.eval().decoder.query_init.birth_score = 0.0
    frame = batches(config, "test")[0]
    with torch.inference_mode():
        scores = model([frame])[0]["instances"].scores
        model.postprocess.instance.score_threshold = float(scores[1])
        model.postprocess.instance.max_detections = 3
        found = model([frame])[0]["instances"]
    assert found.scores.tolist() == scores[:2].tolist() and len(found.track_ids) == 2
    boxes = found.pred_boxes
    assert (boxes >= 0).all() and (boxes <= SIZE).all()


def test_it_trains_evaluates_and_predicts(videos, tmp_path):
    pytest.importorskip("trackeval")
    output = tmp_path / "run"
    options = [
        f"--config-file={CONFIG}",
        *TINY,
        f"dataloader.root={videos}",
        f"dataloader.evaluators.tracks.output_dir={tmp_path / 'tracks'}",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.decoder.query_init.birth_score=0.0",
        "scheduler.warmup_iters=0",
        "train.device=cpu",
        "train.pictures.count=1",
        "train.max_iter=2",
        "train.log_period=1",
    ]
    run(parse_arguments([*options, f"train.output_dir={output}"]))
    metrics = json.loads((output / "results.json").read_text())["metrics"]
    assert set(metrics) == {f"track/{name}" for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")}
    written = (tmp_path / "tracks/val0001.txt").read_text()
    weights = f"train.init_checkpoint={output / 'model_final.safetensors'}"
    run(parse_arguments([*options, weights, "--eval-only", f"train.output_dir={tmp_path / 'again'}"]))
    assert (tmp_path / "tracks/val0001.txt").read_text() == written
    predictor = load(output, device="cpu")
    frames = sorted((videos / "val/val0001/img1").iterdir())
    result = predictor(frames[0], score_threshold=0.0)
    assert len(result) == SETS and {found.class_name for found in result} == {"shape"}
    rows = [(n, found.track_id) for n, r in enumerate(predictor.track(frames), 1) for found in r]
    assert rows == [(int(r[0]), int(r[1])) for r in csv.reader(written.splitlines())]
