"""The TensorBoard tab BOXSCORE.

TensorBoard imports this module when it starts, and ends where that fails: it imports TensorBoard's
base class alone. What else fails is told in the tab.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorboard.plugins import base_plugin

WsgiApp = Callable[[Mapping[str, Any], Callable[..., Any]], Iterable[bytes]]

_PAGE = "/static/index.js"


class BoxscorePlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Losses by group, metrics by evaluated set, out of TensorBoard's data provider.

    Args:
        context: TensorBoard's; its ``data_provider`` is read, by either loader.
    """

    plugin_name = "boxscore"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._provider = context.data_provider

    def get_plugin_apps(self) -> Mapping[str, WsgiApp]:
        """The routes below ``/data/plugin/boxscore``."""
        try:
            from .routes import apps

            return apps(self._provider)
        except Exception as error:
            return {_PAGE: _failure(f"{type(error).__name__}: {error}")}

    def is_active(self) -> bool:
        """Always: an empty folder is shown as one that waits for a training."""
        return True

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's name, and the module that draws it."""
        return base_plugin.FrontendMetadata(
            es_module_path=_PAGE, tab_name="BOXSCORE", disable_reload=True
        )


def _failure(reason: str) -> WsgiApp:
    """A page that says why there is no other."""
    text = (
        f"The BOXSCORE tab cannot be shown: {reason}. The other tabs are not affected. "
        "Repair the installation: pip install --force-reinstall boxscore"
    )
    page = f"export function render() {{ document.body.textContent = {json.dumps(text)}; }}"
    headers = [("Content-Type", "text/javascript"), ("X-Content-Type-Options", "nosniff")]

    def app(_: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [page.encode()]

    return app
