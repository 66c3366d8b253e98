"""Every example of the pages is run as a reader would run it, and prints and writes what the page shows."""

from __future__ import annotations

import pytest

from tests.helpers.page_runs import PageRun
from tests.helpers.pages import PAGES, ROOT, read

#: What the programs go through is covered elsewhere.
pytestmark = pytest.mark.usefixtures("uncovered")

RUN = [
    page
    for page in PAGES
    if any(block.runs and block.language in ("console", "python") for block in read(page))
]


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_of_a_page_does_what_it_shows(page, tmp_path, state_dir):
    PageRun(page, tmp_path, state_dir).run()
