"""Policies of kept results of the suite in the plane of cover and fit, along their temperatures."""

from pathlib import Path

from benchmarks.compare import points_of
from benchmarks.pictures import Plane, called
from benchmarks.report import kept_suite
from textgan_env.ops.plots import new_figure, plain_axes, plot_look, save_figure
from textgan_env.utils.errors import require

#: Nats a token around the points at temperature 1 that are shown.
_MARGIN = 0.12


def draw_plane(options: Plane) -> Path:
    """A line a seed, the point of temperature 1 marked; returns the path.

    Raises:
        InputError: If a policy has no curve of cover and fit there, or the numbers of policies and names differ.
    """
    names = called(options.names, options.policies, "policy", "policies")
    results = kept_suite(options.result)["results"]
    figure = new_figure(6.4, 4.4)
    panel = figure.subplots()
    at_one = []
    for number, (policy, name) in enumerate(zip(options.policies, names, strict=True)):
        of_arm = [one for one in results if one["config"]["arm"] == policy and points_of(one, "cover", "fit")]
        require(bool(of_arm), f"'{options.result}' holds no curve of cover and fit of '{policy}'")
        look = plot_look(number, marked=False)
        for result in of_arm:
            panel.plot(*zip(*points_of(result, "cover", "fit"), strict=True), **look | {"linewidth": 1.0})
        points = [(at["cover"], at["fit"]) for one in of_arm for at in one["curve"] if at["temperature"] == 1]
        at_one += points
        seeds = f"{len(of_arm)} seed{'s' * (len(of_arm) > 1)}"
        marked = plot_look(number) | {"linestyle": "none", "markersize": 6, "label": f"{name}, {seeds}"}
        panel.plot(*zip(*points, strict=True), **marked)
    covers, fits = zip(*at_one, strict=True)
    panel.set_xlim(min(covers) - _MARGIN / 3, max(covers) + 2 * _MARGIN)
    panel.set_ylim(min(fits) - 2 * _MARGIN, max(fits) + _MARGIN)
    panel.set(xlabel="cover, KL(oracle || policy) (nats a token)", ylabel="fit, KL(policy || oracle) (nats a token)")
    plain_axes(panel)
    panel.legend(frameon=False, fontsize=8)
    save_figure(figure, options.path, options.title)
    return options.path
