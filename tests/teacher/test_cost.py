"""Which frozen networks are worth a core of their own, by an estimate."""

import pytest

from ppcls.arch import build_model
from ppcls.teacher import trained_networks
from ppcls.teacher.cost import pays_beside, seconds_of_program

SHAPE = (3, 64, 64)


def pays(teacher, student, **options):
    """Tell it for a distillation, given as in a recipe."""
    models = [{"Teacher": {"name": teacher}}, {"Student": {"name": student, **options}}]
    arch = {"name": "DistillationModel", "class_num": 10, "freeze_params_list": [True, False]}
    model = build_model({**arch, "models": models})
    model.eval()
    return pays_beside(
        seconds_of_program(model.network("Teacher"), SHAPE), list(trained_networks(model)), SHAPE
    )


# Measured on two cores (docs/performance.md): the first four are slower with a core for the teacher, by 7 to
# 45 %; the others are faster, or as fast with half of the processor time.
@pytest.mark.parametrize(
    ("teacher", "student", "paid"),
    [
        ("ResNet18", "ResNet18", False),
        ("ResNet34", "ResNet50", False),
        ("ResNet50", "ResNet34", False),
        ("MobileNetV3_large_x1_0", "ResNet18", False),
        ("ResNet34", "ResNet18", True),
        ("ResNet50", "PPLCNet_x1_0", True),
        ("MobileNetV3_large_x1_0", "MobileNetV3_large_x1_0", True),
        ("PPLCNet_x1_0", "PPLCNet_x1_0", True),
    ],
)
def test_a_teacher_gets_a_core_if_it_takes_enough_work_from_the_training(teacher, student, paid):
    assert pays(teacher, student) is paid


def test_layers_that_do_not_train_cost_only_a_forward_pass():
    assert not pays("ResNet18", "ResNet18")
    assert pays("ResNet18", "ResNet18", freeze_befor="blocks[5]")


def test_networks_in_chains_count_if_they_train():
    chains = [
        {
            name: {
                "name": "AttentionModel",
                "models": [
                    {"net": {"name": "resnet8", "return_patterns": ["blocks[1]"]}},
                    {"transform": {"name": transform, "qk_dim": 8, "keys": ["blocks[1]"]}},
                ],
                **frozen,
            }
        }
        for name, transform, frozen in (
            ("Teacher", "LinearTransformTeacher", {"freeze_params_list": [True, False]}),
            ("Student", "LinearTransformStudent", {}),
        )
    ]
    model = build_model({"name": "DistillationModel", "class_num": 10, "models": chains})
    (found,) = trained_networks(model)
    assert found is model.network("Student").network("net")
