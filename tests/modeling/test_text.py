"""Classes that are texts: the encoder, the tokenizer, and a detector whose classes change."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

from detrex.checkpoint.published import from_published, to_published
from detrex.config import ConfigError, LazyConfig, instantiate
from detrex.config.untrusted import load_untrusted
from detrex.data import DataError, read_words
from detrex.modeling.text import ClipTokenizer, TextDetector, TextEncoder, Vocabulary, for_evaluation
from detrex.predict import Predictor
from detrex.structures import Categories, Sample, Targets
from tests.config_files import config_of

pytest.importorskip("open_clip")

SMALL = (
    "model.num_classes=3",
    "model.vocabulary.names=[cat,dog,sky]",
    "model.vocabulary.style=plain",
    "model.postprocess.thing_classes=[0,1]",
    "model.text={context_length: 12, width: 16, num_layers: 2, num_heads: 2, embed_dim: 8}",
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 2, num_layers: 1}",
    "model.decoder.layers={num_heads: 2, ffn_dim: 16, num_layers: 2}",
    "model.decoder.query_init.num_queries=10",
    "model.pixel_head.mask_dim=8",
    "model.criterion.points.num_points=64",
    "+model.backbone.options.embed_dim=8",
    "+model.backbone.options.depths=[1,1,1,1]",
    "+model.backbone.options.num_heads=[1,1,2,2]",
    "model.templates=['{}.', 'a photo of a {}.']",
)
PROJECT = "projects/openseed/configs"


def small(config: str = "openseed_swin_tiny_coco_panoptic.py", *more: str) -> TextDetector:
    torch.manual_seed(0)
    changed = LazyConfig.apply_overrides(config_of(f"{PROJECT}/{config}"), [*SMALL, *more])
    model = instantiate(changed.model)
    # As if trained: some queries are sure of something.
    torch.nn.init.normal_(model.decoder.heads.sets[0].classes.projection, std=1.0)
    return model


@pytest.fixture(scope="module")
def model() -> TextDetector:
    return small()


def sample(vocabulary: str | None = None, masks: bool = True) -> Sample:
    region = torch.zeros(2, 128, 128, dtype=torch.bool)
    region[0, 5:20, 8:30] = region[1, 30:50, 2:50] = True
    boxes = torch.tensor([[8, 5, 30, 20], [2, 30, 50, 50]]).float()
    targets = Targets(torch.tensor([1, 2]), boxes, region if masks else None, torch.tensor([True, False]))
    made = Sample(image=torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8), targets=targets)
    return made if vocabulary is None else Sample(**made, vocabulary=vocabulary)


def test_tokens_are_clips_and_long_texts_keep_their_end():
    ids = ClipTokenizer(9)(["a photo of  a CAT", "a photo of a very very very very very long cat"])
    assert ids[0].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407, 49407]
    assert ids[1, -1] == 49407 and 49407 not in ids[1, :-1]


def test_tokens_after_the_end_change_nothing_and_batches_neither():
    torch.manual_seed(0)
    encoder = TextEncoder(context_length=10, width=16, num_layers=2, num_heads=2, embed_dim=8).eval()
    texts = ["a cat", "a dog", "a very long name of a thing"] * 120
    with torch.no_grad():
        found = encoder(texts)  # more than are encoded together
        alone = torch.cat([encoder([text]) for text in texts[:3]])
        whole = encoder.hidden(encoder.tokenizer(texts[:1]))[0, 3] @ encoder.projection
    torch.testing.assert_close(found[:3], alone)
    torch.testing.assert_close(found[-3:], alone)
    torch.testing.assert_close(found[0], whole / whole.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "evaluation", "training"),
    [
        ("floor-wood", "floor-wood", "wood floor"),
        ("sky-other-merged", "sky", "sky"),
        ("water-other", "water", "water"),
        ("traffic light", "traffic light", "traffic light"),
    ],
)
def test_names_are_read_as_published(name, evaluation, training):
    assert for_evaluation(name) == evaluation
    assert list(Vocabulary([name], "coco_panoptic").for_training()) == [training]


def test_alternatives_are_drawn_and_marks_left_out():
    vocabulary = Vocabulary(["Street Lights/Lamp, small"], "alternatives")
    assert {next(vocabulary.for_training()) for _ in range(40)} == {"street lights", "lamp small"}
    assert list(Vocabulary(["a+b"]).for_training()) == ["a b"]
    with pytest.raises(ValueError, match="one of the styles plain, .*, attributes, not 'odd'"):
        Vocabulary(["a"], "odd")


def test_a_class_is_found_by_its_words_whatever_the_others_are(model):
    model.eval()
    image = [sample()]
    with torch.inference_mode():
        model.set_classes(["cat", "dog", "sky"])
        three = model.predict(model.preprocess(image)).final.logits
        model.set_classes(["dog", "zebra"])
        two = model.predict(model.preprocess(image)).final.logits
    assert three.shape[-1] == 3 and two.shape[-1] == 2
    # Queries are chosen by all classes, so only the ranks of proposals can differ.
    assert set(model.embed_classes(["dog"]).flatten().tolist()) <= set(
        model.embed_classes(["cat", "dog"]).flatten().tolist()
    )


def test_embeddings_are_kept_until_weights_change(model):
    model.eval()
    read = []
    hook = model.text.layers[0].register_forward_hook(lambda *_: read.append(1))
    image = [sample()]
    try:
        model.set_classes(["one", "two"])
        model(image)
        model.set_classes(["two", "one"])
        model(image)
        before = list(read)
        with torch.no_grad():
            model.text.projection += 0.1
        model(image)
    finally:
        hook.remove()
    assert (len(before), len(read)) == (1, 2)


def test_copies_share_weights_and_not_classes(model):
    model.eval().set_classes(["cat", "dog"])
    other = model.sharing_weights()
    other.set_classes(["zebra", "tree", "sky"], things=[0])
    assert other.text.projection is model.text.projection
    assert model.class_names == ("cat", "dog") and model.postprocess.thing_classes is None
    assert model(other_images := [sample()])[0]["sem_seg"].shape[0] == 2
    assert other(other_images)[0]["sem_seg"].shape[0] == 3 and other.postprocess.thing_classes == [0]


def test_a_step_takes_two_vocabularies_with_losses_of_their_own():
    model = small(
        "openseed_swin_tiny_coco_objects365.py",
        "model.others.o365.names=[Lamp/Light,Cup,Chair,Table]",
        "model.decoder.query_init.num_stuff=4",
    )
    samples = [sample(), sample("o365", masks=False)]
    losses = model.train()(samples)
    assert {"loss_mask", "loss_dice_dn", "o365.loss_ce", "o365.loss_bbox_dn"} <= set(losses)
    assert not any(name.startswith(("o365.loss_mask", "o365.loss_dice")) for name in losses)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.num_classes == 3
    with pytest.raises(ValueError, match="of the vocabulary 'lvis', but besides its own the model has o365"):
        model([sample("lvis")])


def test_weights_of_the_published_names_come_back(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    published = to_published(state, model)
    assert "sem_seg_head.predictor.lang_encoder.lang_encoder.resblocks.1.attn.in_proj_weight" in published
    back = from_published(published, num_heads=2)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def predictor(model: TextDetector) -> Predictor:
    names = Categories.from_words(model.class_names)

    def mapper(record):
        return Sample(image=record["image"].as_subclass(torch.Tensor), height=128, width=128)

    return Predictor(model, mapper, names)


def test_a_predictor_takes_words_for_a_call_or_for_good(model):
    model.eval().set_classes(["cat", "dog"])
    predict = predictor(model)
    image = sample()["image"]
    result = predict.predict(image, classes="red car, sky:stuff", tasks=["semantic"])
    assert result.categories.names == ("red car", "sky") and result.categories.is_thing == (True, False)
    assert predict.names == ("cat", "dog")
    predict.set_classes(["tree"])
    assert predict.predict(image).categories.names == ("tree",)
    with pytest.raises(ValueError, match="named more than once: tree"):
        predict.predict(image, classes=["tree", "tree"])


def test_a_model_without_text_says_so(model):
    predict = copy.copy(predictor(model))
    predict.model = torch.nn.Identity()
    with pytest.raises(ValueError, match="finds the .* that it was trained on, and no others"):
        predict.with_classes("cat")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "expected names of classes"),
        (" , ", "expected names of classes"),
        ("cat, cat", "more than once: cat"),
        ("sky:stuf", "after the colon stands 'stuff' or 'thing'"),
        (["cat", ""], "expected the name of a class"),
        (["cat", 3], "expected the name of a class"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        Categories.from_words(words)


def test_words_come_from_files(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("# mine\nred car\n\nsky:stuff\n", encoding="utf-8-sig")
    assert read_words(file).names == ("red car", "sky") and read_words(str(file)).is_thing == (True, False)
    assert read_words("red car, sky").names == ("red car", "sky")
    with pytest.raises(FileNotFoundError, match="no file of classes at .*other.txt"):
        read_words(str(tmp_path / "other.txt"))
    file.write_text("cat\ncat\n")
    with pytest.raises(DataError, match="words.txt does not list classes.*more than once"):
        read_words(file)


def test_a_config_that_came_with_weights_may_have_texts_where_words_are():
    written = config_of(f"{PROJECT}/openseed_swin_tiny_coco_panoptic.py")
    words = ("model.vocabulary.names=['a cat, or two','b']", "model.num_classes=2")
    changed = LazyConfig.apply_overrides(written, [*words, "model.postprocess.thing_classes=[0]", SMALL[-1]])
    text = OmegaConf.to_yaml(changed)
    assert load_untrusted(text, "a.yaml").model.vocabulary.names[0] == "a cat, or two"
    changed.model.backbone.name = "a cat, or two"
    with pytest.raises(ConfigError, match="names of models have no such characters"):
        load_untrusted(OmegaConf.to_yaml(changed), "a.yaml")
