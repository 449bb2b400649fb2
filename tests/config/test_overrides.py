import pytest
from config_targets import Needy, Thing, count, folder, names_or_none
from omegaconf import OmegaConf
from torch import nn

from detrex.config import ConfigError, LazyConfig, instantiate
from detrex.config import LazyCall as L


@pytest.fixture
def cfg():
    return OmegaConf.create(
        {
            "train": {
                "max_iter": 10,
                "amp": False,
                "init": None,
                "dir": "./out",
                "seed": "???",
                "hooks": [{"p": 5}],
            },
            "optimizer": L(Thing)(parts={"lr": 1e-4, "factors": {"backbone": 0.1}}),
            "model": L(Needy)(
                size=L(count)(path="abc"),
                parts={
                    "backbone": L(Thing)(name="resnet50"),
                    "norm": L("detrex.config.lazy.locate")(name="torch.nn.modules.activation.ReLU"),
                    "classes": "${..size}",
                    "same": "${train.max_iter}",
                    "open": "${not.there}",
                    "mapper": "${data.mapper}",
                    "levels": {0: 1.5, "1": 2.5},
                },
            ),
            "data": {"mapper": {"sizes": [480, 512], "mean": [1.5, 2], "mixed": [1, "a"], "extra": {}}},
            "out": {"names": L(names_or_none)(path="a"), "folder": L(folder)()},
        },
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("train.max_iter=100", "train.max_iter", 100),
        ("model.parts.backbone.name=resnet101", "model.parts.backbone.name", "resnet101"),
        ("optimizer.parts.lr=3e-4", "optimizer.parts.lr", 3e-4),
        ("optimizer.parts.lr=1", "optimizer.parts.lr", 1.0),
        ("optimizer.parts.lr=null", "optimizer.parts.lr", None),
        ("data.mapper.sizes=[320,352]", "data.mapper.sizes", [320, 352]),
        ("data.mapper.sizes=[]", "data.mapper.sizes", []),
        ("data.mapper.sizes.1=640", "data.mapper.sizes", [480, 640]),
        ("data.mapper.mean=[3,4.5]", "data.mapper.mean", [3.0, 4.5]),
        ("data.mapper.mixed=[b,2.5]", "data.mapper.mixed", ["b", 2.5]),
        ("data.mapper.extra={any:{thing:1}}", "data.mapper.extra.any.thing", 1),
        ("train.hooks.0.p=6", "train.hooks", [{"p": 6}]),
        ("train.init='a, b'", "train.init", "a, b"),
        ("train.dir='3'", "train.dir", "3"),
        ("train.dir=", "train.dir", ""),
        ("train.dir=/a/b.json", "train.dir", "/a/b.json"),
        ("train.seed=[1]", "train.seed", [1]),
        ("train={max_iter:7,amp:true}", "train.max_iter", 7),
        ("train={max_iter:7,amp:true}", "train.dir", "./out"),
        ("model.size=3", "model.parts.classes", 3),
        ("model.parts.classes=5", "model.parts.classes", 5),
        ("model.parts.same=5", "model.parts.same", 5),
        ("model.parts.open=x", "model.parts.open", "x"),
        ("model.parts.same='${train.hooks}'", "model.parts.same", [{"p": 5}]),
        ("model.parts.levels.0=2", "model.parts.levels", {0: 2.0, "1": 2.5}),
        ("model.parts.levels.1=3", "model.parts.levels", {0: 1.5, "1": 3.0}),
        ("out.names=[x,y]", "out.names", ["x", "y"]),
        ("out.folder=/tmp", "out.folder", "/tmp"),
        ("+new.key=1", "new", {"key": 1}),
        ("+data.mapper.sizes.2=544", "data.mapper.sizes", [480, 512, 544]),
        ("++train.max_iter=1", "train.max_iter", 1),
        ("++train.note=x", "train.note", "x"),
    ],
)
def test_overrides(cfg, override, path, expected):
    before = cfg.copy()
    changed = LazyConfig.apply_overrides(cfg, [override])
    found = OmegaConf.select(changed, path)
    assert found == expected
    assert type(found) is type(expected) or OmegaConf.is_config(found)
    assert cfg == before


def test_overrides_apply_in_order_and_delete(cfg):
    changed = LazyConfig.apply_overrides(
        cfg, ["~model.parts.backbone", "~train.max_iter=10", "~train.hooks.0", "~out", "+out=3", "out=4"]
    )
    assert "backbone" not in changed.model.parts and "max_iter" not in changed.train
    assert changed.train.hooks == [] and changed.out == 4


def test_a_node_may_be_replaced_by_another_or_changed_in_part(cfg):
    new = "model.parts.backbone={_target_:config_targets.Needy,size:1}"
    backbone = LazyConfig.apply_overrides(cfg, [new]).model.parts.backbone
    assert backbone == {"_target_": "config_targets.Needy", "size": 1}
    backbone = LazyConfig.apply_overrides(cfg, ["model.parts.backbone={name:b}"]).model.parts.backbone
    assert backbone == {"_target_": "config_targets.Thing", "size": 1, "name": "b", "parts": None}


def test_classes_are_given_by_name(cfg):
    changed = LazyConfig.apply_overrides(cfg, ["model.parts.norm=torch.nn.GELU"])
    assert instantiate(changed.model.parts.norm) is nn.GELU
    with pytest.raises(ConfigError, match="did you mean 'GELU'"):
        LazyConfig.apply_overrides(cfg, ["model.parts.norm=torch.nn.GELUU"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.max_itr=1",
            r"there is no 'train.max_itr'; the nearest .*'train.max_iter'.*\+train.max_itr=1",
        ),
        ("max_iter=1", "the nearest is 'train.max_iter'"),
        ("zzz=1", "in the config there are train, optimizer, model, data, out"),
        ("train.hooks.0.zzzzzzzzzzz=1", "the nearest are 'train.hooks.0.p'"),
        ("model.parts.bakbone.name=x", "the nearest .*'model.parts.backbone.name'"),
        ("optimizer.parts={factors:{backbne:1}}", "the nearest .*'optimizer.parts.factors.backbone'"),
        ("train.hooks.1.p=3", "there is no 'train.hooks.1.p'; the nearest .*'train.hooks.0.p'"),
        ("data.mapper.sizes.5=1", "there is no 'data.mapper.sizes.5'"),
        ("~train.max_itr", "the nearest .*'train.max_iter'"),
        ("~train.max_iter=11", "'train.max_iter' is 10"),
        ("+train.max_iter=1", "exists already; write 'train.max_iter=1'"),
        ("+data.mapper.sizes.9=1", "the list has 2 entries"),
        ("train.max_iter.x=1", "'train.max_iter' is 10, there are no keys"),
        ("model.parts.mapper.sizes=[1]", r"'model.parts.mapper' is \$\{data.mapper\}"),
    ],
)
def test_unknown_keys(cfg, override, message):
    with pytest.raises(ConfigError, match=message):
        LazyConfig.apply_overrides(cfg, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter=1.5", r"'train.max_iter' expects int, not 1.5 \(float\)"),
        ("train.max_iter=true", r"expects int, not True \(bool\)"),
        ("train.amp=1", "expects bool, not 1"),
        ("train.dir=3", "expects str, not 3 .*quote"),
        ("optimizer.parts.lr=fast", "expects float, not 'fast'"),
        ("data.mapper.sizes=320", "expects list, not 320"),
        ("data.mapper.sizes=[320,a]", "entry 1, expects int, not 'a'"),
        ("train={amp:3}", "'train.amp' expects bool"),
        ("train=3", "expects dict, not 3"),
        ("model.size=1.5", r"expects int or a node like the present config_targets.count, not 1.5"),
        ("model.parts.classes=x", "expects int or a node"),
        ("model.parts.same=x", "expects int"),
        ("model.parts.backbone=resnet50", "expects a node like the present config_targets.Thing"),
        ("out.names=a", "expects list or a node"),
        ("train.max_iter=1,2", "sweeps"),
        ("train.max_iter=range(1,3)", "sweeps"),
        ("train.dir=glob(*)", "sweeps"),
        ("train.max_iter", "is not an override like key=value"),
        ("--train.max_iter=3", "is not an override like key=value"),
        ("train.init=None", "write null"),
        ("a/b=1", "keys are dotted"),
        ("a@b=1", "keys are dotted"),
        ("train.dir='${x'", r"\$\{x"),
    ],
)
def test_wrong_types_and_wrong_grammar(cfg, override, message):
    with pytest.raises(ConfigError, match=message):
        LazyConfig.apply_overrides(cfg, [override])
