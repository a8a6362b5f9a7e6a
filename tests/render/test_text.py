"""Numbers and names as they are written."""

import math

import pytest

from manual_bp.render import _text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"), (1e-9, "<1 %"), (0.3, "30 %"), (0.9999999, "99 %"), (1.0, "100 %"), (1.0000001, "1.0000001×"),
        (1.004, "1.004×"), (37.26, "37.3×"), (4.75e14, "4.75e+14×"), (math.inf, "inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_the_share_of_the_bound_is_never_rounded_across_it(share, text):
    assert _text.used(share) == text


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        (1.0, math.nextafter(1.0, 2)),
        (0.1, 0.2),
        (1e300, 1.0000001e300),
        (-1.0, 1.0),
        (math.nan, 0.0),
        (math.inf, -math.inf),
    ],
)
def test_a_difference_is_visible_in_the_digits(candidate, reference):
    one, other = _text.pair(candidate, reference)
    assert one != other


def test_values_that_agree_have_six_digits_and_a_zero_no_sign():
    assert _text.pair(1 / 3, 1 / 3) == ("0.333333", "0.333333")
    assert _text.pair(-0.0, 0.0) == ("0", "0")


def test_small_words():
    assert _text.shape((2, 1, 8, 8)) == "2×1×8×8"
    assert _text.shape(()) == "scalar"
    assert _text.index((0, 3)) == "[0, 3]"
    assert _text.index(()) == _text.index(None) == ""
    assert [_text.count(n, "step") for n in (0, 1, 1234567)] == ["0 steps", "1 step", "1 234 567 steps"]
    assert _text.listed(["a", "b", "c"], 2) == "a, b and 1 more"


def test_a_long_name_is_shortened_in_the_middle_and_keeps_its_end():
    short = _text.shorten("features.encoder.block3.projection.weight.grad", 20)
    assert len(short) == 20
    assert short.startswith("featur…")
    assert short.endswith(".weight.grad")


def test_what_a_terminal_would_obey_is_shown_instead():
    assert _text.tidy(("a\x1b[31mb", "two\nlines\tand\u2028more", "\u202edrow", "\ud800")) == (
        "a\\x1b[31mb",
        "two lines and more",
        "\\u202edrow",
        "\\ud800",
    )


def test_symbols_of_calculus_have_names_in_ascii():
    assert _text.to_ascii("∂L/∂w⁽¹⁾ = Σᵢⱼ δ · x, γ₁₀ ≤ 2×3, ü") == "dL/dw(1) = sum ij delta * x, gamma10 <= 2x3, \\xfc"


def test_a_batch_that_differs_from_probe_to_probe_is_n():
    assert _text.common_shape([(1, 3, 8), (5, 3, 8)]) == "N×3×8"
    assert _text.common_shape([(2, 3), (2, 3)]) == "2×3"
    assert _text.common_shape([(2, 3), (2, 4)]) == "2×3", "not only the batch: nothing is claimed"
    assert _text.common_shape([(), ()]) == "scalar"


@pytest.mark.parametrize(
    ("op", "short"),
    [
        ("Linear(in_features=4, out_features=5, bias=True)", "Linear(4, 5)"),
        ("Linear(in_features=4, out_features=5, bias=False)", "Linear(4, 5, bias=False)"),
        ("Conv2d(1, out_channels=1, kernel_size=3)", "Conv2d(1, 1, kernel_size=3)"),
        ("Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))", "Conv2d(3, 8, kernel_size=(3, 3))"),
        (
            "MaxPool2d(kernel_size=2, stride=1, padding=0, ceil_mode=False)",
            "MaxPool2d(kernel_size=2, stride=1)",
        ),
        ("BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)", "BatchNorm2d(8)"),
        ("my <op>", "my <op>"),
    ],
)
def test_an_operation_loses_what_only_repeats_defaults(op, short):
    assert _text.operation(op) == short
