"""Modules that exist under the names scripts written for PaddleClas import."""
