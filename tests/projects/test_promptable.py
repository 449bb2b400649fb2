"""Words and clicks in one small model, on scenes of which some combinations are held out."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.cli.main import main
from detrex.config import LazyConfig, instantiate
from detrex.data import EvalMapper
from detrex.modeling.inference import Tiles
from detrex.modeling.promptable import PromptableDetector
from detrex.modeling.prompts import PromptCriterion
from detrex.modeling.text import Vocabulary, WordEncoder
from detrex.predict import Predictor, load
from detrex.structures import Categories, Prompts, Sample, Targets
from projects.promptable.scenes import BADGE, HELD_OUT, SEEN, UNSEEN, WORDS, draw_scene, ensure_scenes
from tests.config_files import config_of

CONFIG = "projects/promptable/configs/promptable_shapes.py"
HELD_OUT_CONFIG = "projects/promptable/configs/promptable_shapes_held_out.py"
SMALL = (
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 2, num_layers: 1}",
    "model.pixel_head.mask_dim=8",
    "model.decoder.layers={num_heads: 2, ffn_dim: 16, num_layers: 1}",
    "model.prompt_decoder.layers.num_layers=2",
    "model.decoder.query_init.num_queries=6",
    "model.criterion.points.num_points=32",
    "model.text.embed_dim=8",
    "model.drawing.num_prompts=4",
    "model.backbone.options={channels: [8, 8, 8, 8], stem_width: 4}",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    return ensure_scenes(str(folder), {"train": 4, "val": 2, "held_out": 2}, image_size=64)


@pytest.fixture(scope="module")
def small(root) -> PromptableDetector:
    torch.manual_seed(0)
    words = [*SMALL, f"dataloader.root={root}", "dataloader.splits={train: 4, val: 2, held_out: 2}"]
    config = LazyConfig.apply_overrides(config_of(CONFIG), [*words, "dataloader.image_size=64"])
    return instantiate(config.model)


def masks() -> Targets:
    inside = torch.zeros(2, 64, 64, dtype=torch.bool)
    inside[0, 8:40, 8:40] = inside[1, 12:20, 12:20] = True
    boxes = torch.tensor([[8.0, 8, 40, 40], [12, 12, 20, 20]])
    return Targets(torch.tensor([3, 44]), boxes, inside, torch.ones(2, dtype=torch.bool))


def image(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)


def test_training_never_shows_what_is_held_out(root):
    assert len(SEEN) == 44 and len(UNSEEN) == 16 and {k.name for k in SEEN}.isdisjoint(k.name for k in UNSEEN)
    for held_out in (False, True):
        for seed in range(8):
            picture, regions = draw_scene(np.random.default_rng([seed, held_out]), 64, held_out)
            again, _ = draw_scene(np.random.default_rng([seed, held_out]), 64, held_out)
            assert np.array_equal(picture, again) and picture.shape == (64, 64, 3)
            names = [region.name for region in regions]
            unseen = [name for name in names if any(set(pair) <= set(name.split()) for pair in HELD_OUT)]
            assert bool(unseen) == held_out
            things = [region.mask for region in regions if region.name != BADGE]
            for region in regions:
                assert region.mask.any()
                within = [(region.mask & ~thing).sum() == 0 for thing in things]
                assert region.name != BADGE or sum(within) == 1
            assert np.stack(things).sum(0).max() == 1  # only badges lie within others
    for split, kinds in (("train", SEEN), ("held_out", UNSEEN)):
        content = json.loads(open(f"{root}/annotations/instances_{split}.json").read())
        listed = [category["name"] for category in content["categories"]]
        assert listed == [kind.name for kind in kinds] + [BADGE] * (split == "train")
        if split == "held_out":
            pairs = json.loads(open(f"{root}/annotations/pairs_held_out.json").read())
            assert [category["name"] for category in pairs["categories"]] == [" ".join(p) for p in HELD_OUT]
            for one, other in zip(pairs["annotations"], content["annotations"], strict=True):
                assert set(HELD_OUT[one["category_id"] - 1]) <= set(listed[other["category_id"] - 1].split())
                assert one["segmentation"] == other["segmentation"]
        assert content["annotations"] and len(content["images"]) == {"train": 4, "held_out": 2}[split]


def test_words_add_up_and_unknown_ones_are_named():
    torch.manual_seed(0)
    text = WordEncoder(WORDS, embed_dim=8)
    found = text(["red plain star", "star  RED, plain.", "red star", "star"])
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert not torch.allclose(found[0], found[2], atol=1e-3) and len(text([])) == 0
    expected = text.common + text.vectors.weight[text.tokenizer(["red star"])[0]].sum(0)
    torch.testing.assert_close(found[2], expected / expected.norm(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="does not know 'rouge', 'car'; the words that it knows are 'red', "):
        text(["red star", "rouge car"])
    with pytest.raises(ValueError, match="' ,' has no word"):
        text([" ,"])
    with pytest.raises(ValueError, match="expected different words in lower case"):
        WordEncoder(["red", "Red"])


def test_attributes_are_left_out_of_all_names_of_a_step_together():
    vocabulary = Vocabulary(["red plain star", "blue plain star", "badge"], style="attributes")
    torch.manual_seed(0)
    drawn = {tuple(vocabulary.for_training()) for _ in range(60)}
    assert drawn == {
        ("red plain star", "blue plain star", "badge"),
        ("red star", "blue star", "badge"),
        ("plain star", "plain star", "badge"),
        ("star", "star", "badge"),
    }


def test_a_step_of_training_reaches_every_parameter(small):
    small.train().zero_grad()
    torch.manual_seed(1)
    empty = Sample(image=image(1), targets=Targets.empty(64, 64))
    losses = small([Sample(image=image(), targets=masks()), empty])
    assert {"loss_ce", "loss_dice_interm", "loss_ce_dn"} <= set(losses)
    assert {"prompt_loss_iou", "prompt_loss_dice_0"} <= set(losses)
    sum(losses.values()).backward()
    # Words that no class has, and prompts that were not drawn, have rows of zeros instead of none.
    assert [n for n, p in small.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert not [name for name in small([empty]) if name.startswith("prompt_")]
    wrong = Targets(torch.tensor([45]), masks().boxes[:1], masks().masks[:1], torch.ones(1, dtype=torch.bool))
    with pytest.raises(ValueError, match="class indices 45 to 45 do not fit the 45 names"):
        small([Sample(image=image(), targets=wrong)])


def test_queries_without_a_mask_learn_how_badly_they_fit(small):
    """Those of a prompt with one answer expect the IoU with it; their masks and boxes learn nothing."""
    small.train()
    torch.manual_seed(0)
    one = masks()
    one = Targets(one.labels[:1], one.boxes[:1], one.masks[:1], one.is_thing[:1])
    samples = [Sample(image=image(), targets=one)]
    found = {}
    for rate_all in (False, True):
        small.prompt_criterion.rate_all = rate_all
        torch.manual_seed(0)
        found[rate_all] = small(samples)
    changed = {n for n in found[True] if not torch.equal(found[True][n], found[False][n])}
    assert changed == {"prompt_loss_iou", "prompt_loss_iou_0"}
    assert all(found[True][name] > found[False][name] for name in changed)
    assert isinstance(small.prompt_criterion, PromptCriterion)


def test_one_model_answers_words_and_prompts(small):
    small.eval()
    predictor = Predictor(small, EvalMapper(64, 64), Categories.from_names(small.class_names))
    sample = Sample(image=image(), prompts=Prompts.clicks(torch.tensor([[[0.3, 0.3], [0.8, 0.6]]])))
    with torch.inference_mode():
        both, words = small([sample])[0], small([Sample(image=image())])[0]
    assert set(both) == {"instances", "prompted"} and set(words) == {"instances"}
    assert len(both["prompted"]) == 2 * 3
    torch.testing.assert_close(both["instances"].scores, words["instances"].scores)
    picture = image().permute(1, 2, 0).numpy()
    (answer,) = predictor.prompt(picture, points=[(20, 20)])
    assert len(answer) >= 1 and answer.masks.size == (64, 64)
    found = predictor(picture, classes=["red star", "badge"], score_threshold=0.0)
    assert set(found.class_names) == {"red star", "badge"}
    for classes, message in (
        ("zebra", "does not know 'zebra'"),
        (["star", "Star"], "named more than once: star"),
        ("star, circle:stuff", "finds instances alone, which stuff has none of: circle"),
        ([], "expected names of classes"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(picture, classes=classes)
    for levels in ([], [4], [1, 1]):
        with pytest.raises(ValueError, match="expected some of 1, the largest, to 3, each once"):
            predictor.everything(picture, levels=levels)
    assert len(predictor.prompt(picture, points=[(x % 64, 5) for x in range(300)])) == 300


def test_tiles_find_words(small):
    small.eval()
    predictor = Predictor(small, EvalMapper(64, 64), Categories.from_names(small.class_names))
    picture = np.concatenate([image(k).permute(1, 2, 0).numpy() for k in range(2)], 1)
    small.inference = Tiles(size=64, overlap=16)
    try:
        found = predictor(picture, classes=["red star", "badge"], score_threshold=0.0)
        (answer,) = predictor.prompt(picture, points=[(100, 20)])
    finally:
        small.inference = None
    assert found.masks.shape[1:] == (64, 128) and found.boxes[:, 2].max() > 80
    assert answer.masks.size == (64, 128)


@pytest.fixture(scope="module")
def client(small):
    pytest.importorskip("fastapi_offline")
    from starlette.testclient import TestClient

    from detrex.serve.app import create_app

    predictor = Predictor(small.eval(), EvalMapper(64, 64), Categories.from_names(small.class_names))
    with TestClient(create_app(predictor)) as client:
        client.predictor = predictor
        yield client


def ask(client, pictures: int = 1, **fields: str):
    buffer = io.BytesIO()
    Image.fromarray(image().permute(1, 2, 0).numpy()).save(buffer, "png")
    files = [("images", ("a.png", buffer.getvalue()))] * pictures
    return client.post("/predict", files=files, data=fields)


def test_a_server_answers_words_and_prompts(client):
    picture = image().permute(1, 2, 0).numpy()
    answer = ask(client, classes="red star, badge", score_threshold="0").json()
    expected = client.predictor(picture, classes="red star, badge", score_threshold=0.0)
    assert [c["name"] for c in answer["categories"]] == ["red star", "badge"]
    assert [a["score"] for a in answer["annotations"]] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    answer = ask(client, points="[[20, 20], [50, 10]]", boxes="[[5, 5, 40, 30]]").json()
    expected = client.predictor.prompt(picture, points=[(20, 20), (50, 10)], boxes=[(5, 5, 40, 30)])
    assert {a["prompt"] for a in answer["annotations"]} == {0, 1, 2}
    assert len(answer["annotations"]) == sum(map(len, expected))
    first = answer["annotations"][0]
    assert first["score"] == pytest.approx(expected[0].quality[0].item(), abs=1e-4)
    assert first["segmentation"]["size"] == [64, 64] and answer["images"][0]["file_name"] == "a.png"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": "zebra"}, "does not know 'zebra'"),
        ({"classes": "star, star"}, "named more than once: star"),
        ({"classes": ""}, "expected the name of a class"),
        ({"points": "[[1]]"}, "points"),
        ({"points": "here"}, "'points' is no JSON list"),
        ({"points": "[]"}, "give points="),
        ({"points": "[[99, 3]]"}, "not within the image of 64 x 64 pixels"),
        ({"boxes": "[[9, 9, 9, 20]]"}, "x0 < x1"),
        ({"points": "[[1, 1]]", "classes": "star"}, "not both"),
        ({"points": "[[1, 1]]", "format": "png"}, "answered in JSON"),
        ({"points": "[[1, 1]]", "pictures": 2}, "about one picture"),
    ],
)
def test_wrong_words_and_prompts_are_told(client, fields, message, caplog):
    response = ask(client, **fields)
    assert response.status_code == 422 and message in response.json()["detail"]
    assert not caplog.records


def test_a_run_is_evaluated_on_what_it_was_not_shown(root, tmp_path):
    run, words = tmp_path / "run", [f"dataloader.root={root}", "dataloader.image_size=64"]
    words += [*SMALL, "dataloader.splits={train: 4, val: 2, held_out: 2}", "train.device=cpu"]
    words += ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0", "train.pictures.count=0"]
    short = ["train.max_iter=2", "scheduler.warmup_iters=0", "dataloader.train.total_batch_size=2"]
    main(["train", CONFIG, *words, *short, f"train.output_dir={run}"])
    results = json.loads((run / "results.json").read_text())["metrics"]
    assert {"bbox/AP", "segm/AP", "one_click/IoU_max", "one_click/IoU_oracle"} <= set(results)
    other = tmp_path / "held_out"
    main(["eval", HELD_OUT_CONFIG, "--weights", str(run), *words, f"train.output_dir={other}"])
    kept = json.loads((other / "results.json").read_text())
    assert set(kept["metrics"]) == set(results)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(" ".join(kind.name.split()[::-1]) for kind in UNSEEN))  # order says nothing
    again = ["eval", HELD_OUT_CONFIG, "--weights", str(run), "--classes", str(names), *words]
    main([*again, f"train.output_dir={tmp_path / 'again'}"])
    assert json.loads((tmp_path / "again/results.json").read_text())["metrics"] == kept["metrics"]
    photo, found = f"{root}/held_out/000000.png", tmp_path / "found"
    options = ["--classes", "red star, badge", "--confidence-threshold", "0.05"]
    main(["predict", photo, "--model", str(run), "--output", str(found), *options])
    assert list(found.glob("*"))
    assert load(run, device="cpu").names == tuple([kind.name for kind in SEEN] + [BADGE])
