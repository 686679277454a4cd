"""Loops that are stopped after any batch and gone on with."""

import pytest
import torch

from textgan_env.ops.loops import StepLoops, each, mean, watched
from textgan_env.ops.sampling import derived_generator
from textgan_env.utils.errors import InputError


class Stop(Exception):
    """Ends a loop at a boundary."""


class Learner:
    """Two loops in a step: their items are drawn in order, and what is done with one draws globally."""

    def __init__(self) -> None:
        self.weight = torch.zeros(())

    def step(self) -> list[dict[str, list[float]]]:
        generator = derived_generator(0, "step")
        return [self.loop(generator, seed) for seed in (1, 2)]

    def loop(self, generator: torch.Generator, seed: int) -> dict[str, list[float]]:
        items = (torch.rand((), generator=generator) for _ in range(3))
        return each(items, self.learn, ("drawn", "weight"), seed=seed)

    def learn(self, item: torch.Tensor) -> tuple[torch.Tensor, float]:
        drawn = torch.rand(()) + item
        self.weight += drawn
        return drawn, float(self.weight)


def test_a_watched_loop_gives_what_a_plain_one_does() -> None:
    calls: list[int] = []
    plain, seen = Learner(), Learner()
    expected = plain.step()
    with watched(StepLoops(lambda: calls.append(1))):
        assert seen.step() == expected
    assert torch.equal(plain.weight, seen.weight)
    assert len(calls) == 6
    # Three sums of U(0,1) + U(0,1) in each loop: no two alike, and the weight is their running sum.
    assert expected[0]["weight"][2] == pytest.approx(sum(expected[0]["drawn"]))


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_loop_stopped_after_any_item_goes_on_to_the_same_numbers(cut: int) -> None:
    whole = Learner()
    expected = whole.step()
    saved: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    first, second = Learner(), Learner()

    def save_and_stop() -> None:
        saved.append((first.weight.clone(), loops.saved()))
        if len(saved) == cut:
            raise Stop

    loops = StepLoops(save_and_stop)
    with pytest.raises(Stop), watched(loops):
        first.step()
    second.weight, restored = saved[-1]
    boundaries: list[int] = []
    again = StepLoops(lambda: boundaries.append(1), restored)
    assert again.saved().keys() == restored.keys()  # what was restored can be saved again at once
    with watched(again):
        assert second.step() == expected
    assert torch.equal(second.weight, whole.weight)
    assert len(boundaries) == 6 - cut


def test_a_loop_inside_an_item_is_no_boundary() -> None:
    calls: list[int] = []
    with watched(StepLoops(lambda: calls.append(1))):
        each([1, 2], lambda _: each([1, 2, 3], lambda one: (one,), ("inner",), seed=0)["inner"][:1], ("outer",), seed=0)
    assert len(calls) == 2


def test_a_number_that_is_not_finite_is_named_with_its_batch() -> None:
    values = iter([1.0, 2.0, float("nan")])
    with pytest.raises(InputError, match="loss is nan in batch 3: try a smaller learning rate"):
        each(range(3), lambda _: (0.0, torch.tensor(next(values))), ("other", "loss"), seed=0)


def test_a_loop_without_items_has_no_numbers() -> None:
    assert each([], lambda _: (1.0,), ("loss",), seed=0) == {"loss": []}


def test_the_mean_is_exactly_rounded() -> None:
    assert mean([0.1] * 10) == 0.1
    assert sum([0.1] * 10) / 10 != 0.1
