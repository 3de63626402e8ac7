"""Makes README's pictures: what both trackers show without a click.

Usage: uv run python .github/screenshots.py [DIR]

DIR holds the logs of several runs, such as those of examples/compare_four.py, by default "four".
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from boxscore.cli.view import servers

HERE = Path(__file__).parent
SIZE = {"width": 1500, "height": 900}


def main(folder: Path) -> None:
    """Open both pages on the logs in ``folder``, and write a picture of each."""
    with servers(folder) as links, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        pages = {"tensorboard": f"{links.tensorboard}#boxscore", "mlflow": links.mlflow}
        for name, address in pages.items():
            page = browser.new_page(viewport=SIZE)
            page.goto(str(address))
            page.wait_for_timeout(20_000)
            page.screenshot(path=HERE / f"{name}.png")
            print(HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "four"))
