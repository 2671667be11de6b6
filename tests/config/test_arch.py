"""What an ArchSpec answers about the networks of a recipe."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import ppcls
from ppcls.config import ArchSpec
from ppcls.errors import ConfigError

LEAF = {"name": "resnet8", "class_num": 5, "pretrained": "a/leaf"}
CHAIN = {
    "name": "AttentionModel",
    "class_num": 7,
    "pretrained_list": ["a/base", None],
    "freeze_params_list": [True, False],
    "models": [{"Net": {"name": "resnet8"}}, {"Map": {"name": "LinearTransformTeacher", "keys": ["x"]}}],
}


def group(**options):
    return {
        "name": "DistillationModel",
        "class_num": 9,
        "freeze_params_list": [True, False, False],
        "pretrained_list": ["a/teacher", None, None],
        "models": [
            {"Teacher": {"name": "resnet20"}},
            {"Chain": CHAIN},
            {"Small": {"name": "resnet8", "use_ssld": True, "pretrained": True}},
        ],
        **options,
    }


def test_a_plain_network_is_its_own_main_one_and_head():
    spec = ArchSpec.read(LEAF)
    assert (spec.main, spec.head, spec.children, spec.main_name) == (spec, spec, (), None)
    assert (spec.class_count, spec.pretrained, spec.has_own_weights) == (5, "a/leaf", True)
    assert (spec.path, spec.title, spec.frozen, spec.trained) == ("Arch", "", False, [])
    assert ArchSpec.read({"name": "resnet8"}).class_count == 1000


def test_networks_inside_are_found_with_their_place():
    spec = ArchSpec.read(group())
    assert spec.names == ["Teacher", "Chain", "Small"]
    assert [network.path for network in spec.walk()] == [
        "Arch",
        "Arch.models.0.Teacher",
        "Arch.models.1.Chain",
        "Arch.models.1.Chain.models.0.Net",
        "Arch.models.1.Chain.models.1.Map",
        "Arch.models.2.Small",
    ]
    assert spec.find("Chain").head.prefix == "Chain.Net."
    assert spec.find(None) is spec
    with pytest.raises(ConfigError, match=r"no network 'Techer'. Did you mean: Teacher\?"):
        spec.find("Techer")


def test_what_is_frozen_and_what_trains():
    spec = ArchSpec.read(group())
    frozen = {network.title: network.frozen for network in spec.walk()}
    assert frozen == {
        "": False, "Teacher": True, "Chain": False, "Net": True, "Map": False, "Small": False,
    }  # fmt: skip
    assert spec.trained == ["Small"]  # the classifier of the chain is frozen
    whole = ArchSpec.read(group(freeze_params_list=[False, True, False]))
    assert all(network.frozen for network in whole.find("Chain").walk())
    every = {**CHAIN, "freeze_params_list": [True, True]}
    assert ArchSpec.read(group(models=[{"Teacher": LEAF}, {"Chain": every}])).find("Chain").frozen


@pytest.mark.parametrize(
    ("names", "freeze", "chosen", "main"),
    [
        (["Teacher", "Student", "Other"], None, None, "Student"),
        (["Teacher", "Student", "Other"], None, "Other", "Other"),
        (["A", "B", "C"], [False, False, True], None, "B"),
        (["A", "B"], [True, True], None, "B"),
        (["A", "B"], None, "A", "A"),
    ],
)
def test_the_network_to_deploy(names, freeze, chosen, main):
    node = {"name": "DistillationModel", "models": [{name: LEAF} for name in names]}
    node |= {} if freeze is None else {"freeze_params_list": freeze}
    assert ArchSpec.read(node, chosen).main_name == main
    assert ArchSpec.read({**node, "infer_model_name": chosen}).main_name == main
    with pytest.raises(ConfigError, match="no network 'D'"):
        assert ArchSpec.read(node, "D").main


def test_class_counts_come_from_outside():
    spec = ArchSpec.read(group())
    counts = {name: spec.find(name).class_count for name in spec.names}
    assert counts == {"Teacher": 9, "Chain": 7, "Small": 9}


def test_weights_that_the_recipe_names():
    spec = ArchSpec.read(group())
    assert [child.pretrained for child in spec.children] == ["a/teacher", None, True]
    assert [child.has_own_weights for child in spec.children] == [True, True, True]
    bare = spec.without_weights()
    assert not any(network.pretrained for network in bare.walk())
    assert not any("use_ssld" in network.options for network in bare.walk())
    kept = spec.without_weights(keep={"Teacher"})
    assert [bool(network.has_own_weights) for network in kept.children] == [True, False, False]
    assert kept.node()["pretrained_list"] == ["a/teacher", None, None]
    assert [network.frozen for network in kept.walk()] == [network.frozen for network in spec.walk()]


def test_some_networks_alone():
    spec = ArchSpec.read(group(frozen_mode={"Teacher": "train"}, infer_model_name="Small"))
    part = spec.only({"Chain", "Teacher"})
    assert part.names == ["Teacher", "Chain"]
    assert part.find("Chain").names == ["Net"]
    assert part.find("Chain").head.frozen
    assert part.node()["pretrained_list"] == ["a/teacher", None]
    assert "infer_model_name" not in part.node()
    assert spec.only({"Small"}).node()["frozen_mode"] == {}
    assert spec.only({"Small"}).main_name == "Small"
    with pytest.raises(ConfigError, match="no network 'Smal'"):
        spec.only({"Smal"})


def test_the_node_comes_back_unchanged_and_is_a_copy():
    node = group()
    spec = ArchSpec.read(OmegaConf.create(node))
    assert spec.node() == node
    spec.node()["models"][1]["Chain"]["models"].pop()
    assert spec.node() == node
    assert ArchSpec.read(spec) is spec


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (None, "Arch: expected a network with its name, got null"),
        ({"models": []}, "Arch: expected a network"),
        ({"name": "DistillationModel", "models": []}, "Arch.models: expected a list of networks"),
        (
            {"name": "DistillationModel", "models": [{"A": {"class_num": 3}}]},
            r"Arch.models.0.A: expected a net",
        ),
        ({"name": "DistillationModel", "models": ["A"]}, r"Arch.models.0: .*Write 'A:'"),
    ],
)
def test_what_describes_no_network_is_refused_with_its_place(node, text):
    with pytest.raises(ConfigError, match=text):
        ArchSpec.read(node)


def test_nobody_else_looks_into_the_section():
    """What is frozen, which weights are read and which network is deployed is asked of an ArchSpec."""
    words = re.compile(r"""["'](models|freeze_params_list|pretrained_list|infer_model_name)["']""")
    package = Path(ppcls.__file__).parent
    found = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if words.search(file.read_text(encoding="utf-8"))
    }
    readers = {"config/arch.py"}
    checks = {f"config/checks/{topic}.py" for topic in ("components", "networks", "recipe")}
    checks |= {"config/json_schema.py"}
    component = {"arch/distillation.py"}  # whose options they are
    command = {"commands/__init__.py"}  # `ppcls models`
    saved = {"report/runs.py"}  # hands the name to an ArchSpec, from a recipe that need not be complete
    assert found <= readers | checks | component | command | saved
