"""The heatmaps of the HTML page: colours, outlines and numbers at the right place."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import report
from html_reader import maps_of, page_of, pixels, planted, quantity


def test_the_difference_is_coloured_at_the_planted_place_alone():
    images = [pixels(src) for src in maps_of(page_of(planted()))[-4:]]
    candidate, reference, difference, used = images
    neutral = difference[0, 0]
    assert list(zip(*np.where((difference != neutral).any(-1)), strict=True)) == [(4, 2)]
    assert difference[4, 2, 0] > difference[4, 2, 2], "too large is orange"
    assert list(zip(*np.where((candidate != reference).any(-1)), strict=True)) == [(4, 2)]
    assert list(zip(*np.where((used != used[0, 0]).any(-1)), strict=True)) == [(4, 2)]


def test_the_outline_and_the_numbers_are_at_the_planted_place():
    page = page_of(planted())
    outlines = [(a["x"], a["y"]) for a in page.all("rect") if a.get("class") == "worst"]
    assert set(outlines) == {("2", "4")}
    plane = json.loads(page.scripts[0])["q0"][0]
    assert plane["index"] == [1, 0]
    assert divmod(plane["worst"], plane["cols"]) == (4, 2)
    assert plane["difference"][plane["worst"]] == 0.5
    assert "index [1, 0, 4, 2]" in page.text


@pytest.mark.parametrize(
    ("shape", "at", "told"),
    [
        ((), (), "the only element"),
        ((7,), (3,), "[3]"),
        ((40,), (37,), "[36:39]"),
        ((3, 4), (2, 1), "[2, 1]"),
        ((2, 20, 31), (1, 19, 30), "[1, 18:20, 30]"),
    ],
)
def test_a_cell_says_which_elements_it_stands_for(shape, at, told):
    assert f"index {told} candidate" in page_of(planted(at=at, shape=shape)).text


def test_nan_and_infinity_have_a_colour_of_their_own():
    reference = np.ones((3, 3))
    candidate = reference.copy()
    candidate[0, 1], candidate[2, 2] = np.nan, -np.inf
    page = page_of(report([quantity("x.grad", candidate, reference)]))
    image = pixels(maps_of(page)[-4])
    special = {tuple(image[0, 1]), tuple(image[2, 2])}
    assert len(special) == 1
    assert tuple(image[1, 1]) not in special
    assert "NaN or infinite" in page.text
    plane = json.loads(page.scripts[0])["q0"][0]
    assert plane["candidate"][1] == "NaN"
    assert plane["candidate"][8] == "-inf"


def test_a_damaged_picture_is_left_out_in_words():
    found = planted()
    check = found.checks[0]
    assert check.picture
    plane = replace(check.picture.planes[0], rows=7000)
    damaged = replace(check, picture=replace(check.picture, planes=(plane,)))
    page = page_of(replace(found, checks=(damaged,)))
    assert page.all("img") == []
    assert "Its pictures are not drawn here" in page.text


def test_of_equally_bad_cells_the_one_told_of_is_outlined():
    reference = np.ones((1, 1, 3, 4))
    candidate = reference * 2
    check = quantity("x.grad", candidate, reference)
    assert check.isolated
    told = replace(check, isolated=replace(check.isolated, worst_index=(0, 0, 2, 1)))
    page = page_of(report([told]))
    assert {(a["x"], a["y"]) for a in page.all("rect") if a.get("class") == "worst"} == {("1", "2")}
