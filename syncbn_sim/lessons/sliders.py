"""Sliders under a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def interact(draw: Callable[..., None], **controls: Any) -> None:
    """Shows the controls (ipywidgets), and below them what `draw` shows and prints for their values, anew at each change.

    As ipywidgets' own `interact`, but for how the figure gets into the page: that one redirects whatever is said meanwhile, which
    nbclient answers on the very socket where it waits for the cell's end, and now and then it misses that (nbclient issue 312): a
    busy machine's `nbconvert --execute` then waits for ever. Here the figure is caught first, and handed over whole.
    """
    import ipywidgets as widgets
    from IPython.display import display
    from IPython.utils.capture import capture_output

    shown = widgets.Output()

    def update(_: object = None) -> None:
        with capture_output() as caught:
            draw(**{name: control.value for name, control in controls.items()})
        figures = [{"output_type": "display_data", "data": o.data, "metadata": o.metadata} for o in caught.outputs]
        shown.outputs = (*figures, {"output_type": "stream", "name": "stdout", "text": caught.stdout})

    for control in controls.values():
        control.observe(update, "value")
    update()
    display(widgets.VBox([*controls.values(), shown]))
