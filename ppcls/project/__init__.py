"""From images to a project: look at the data, choose defaults, write the recipes of every step."""

from ppcls.project.layout import Project, finish_project, is_project, read_project
from ppcls.project.lists import WrittenSplit, split_data
from ppcls.project.methods import METHODS
from ppcls.project.planning import DEFAULT_METHOD, Plan, Training, check_choices, plan
from ppcls.project.summary import DataSummary, inspect_data
from ppcls.project.writing import check_files, check_folder, write_project

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "DataSummary",
    "Plan",
    "Project",
    "Training",
    "WrittenSplit",
    "check_choices",
    "check_files",
    "check_folder",
    "finish_project",
    "inspect_data",
    "is_project",
    "plan",
    "split_data",
    "read_project",
    "write_project",
]
