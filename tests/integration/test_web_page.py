"""The page in a real browser: one headless Chromium for all of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redislogkit.view.filter import Filter
from redislogkit.web.archives import Found
from redislogkit.web.rows import row
from tests.helpers.browser import Browser, find
from tests.helpers.page import ServedPage, busy_state, seen

pytestmark = pytest.mark.usefixtures("uncovered")

HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>\x1b[31m\u202e&lt;b&gt;'
TRACEBACK = 'Traceback (most recent call last):\n  File "cart.py", line 42\nCardRefused: <b>no</b> money'
#: Set where the browser has to be there: a test that is skipped for ever proves nothing.
REQUIRED = "REDISLOGKIT_BROWSER_TESTS"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        if os.environ.get(REQUIRED):
            pytest.fail("there is no Chromium, and REDISLOGKIT_BROWSER_TESTS says that there has to be one")
        pytest.skip("there is no Chromium on this machine (apt-get install chromium)")
    made = Browser(path)
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ServedPage]]:
    made: list[ServedPage] = []

    def make(*arguments: Any, **options: Any) -> ServedPage:
        made.append(ServedPage(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def show(browser, serve) -> Iterator[Callable[..., tuple[Browser, ServedPage]]]:
    """Open the page; afterwards, nothing may have failed in it."""

    def open_(*arguments: Any, **options: Any) -> tuple[Browser, ServedPage]:
        page = serve(*arguments, **options)
        browser.errors.clear()
        browser.requests.clear()
        browser.resize(1360, 820)
        browser.open(page.address)
        browser.run("localStorage.clear()")
        browser.wait("page.online && !page.fetching", "the page is connected")
        return browser, page

    yield open_
    assert not browser.errors
    browser.open("about:blank")


def texts(browser: Browser) -> list[str]:
    """Messages in sight, from the top."""
    found = browser.run(
        "[...painted].sort((a, b) => a[0].n - b[0].n).map(([row, node]) => node.querySelector('.text')?.textContent ?? '')"
    )
    assert isinstance(found, list)
    return found


def shown(browser: Browser, count: int) -> None:
    browser.wait(f"page.shown.length === {count} && !page.fetching", f"{count} records are shown")


def test_records_come_live_below_those_that_were_there(show):
    old = [seen(number, f"old {number}") for number in range(1, 4)]
    browser, page = show(old)
    shown(browser, 3)
    page.log("new one", 40, extra={"order": 7}, exc_text=TRACEBACK)
    browser.wait("page.shown.length === 4 && painted.size === 4")
    browser.wait("document.querySelector('#space .error') !== null")
    assert texts(browser) == ["old 1", "old 2", "old 3", "new one  CardRefused: <b>no</b> money   order=7"]
    assert browser.run("document.querySelectorAll('.row.error').length") == 1
    assert browser.run("document.getElementById('live').textContent").strip() == "live"
    assert browser.run("document.title") == "app – redislogkit"
    # Nothing from elsewhere.
    assert {address.split("/")[2] for address in browser.requests} == {page.address.split("/")[2]}


def test_text_of_records_is_never_markup(show):
    browser, page = show([seen(1, "harmless")])
    page.log(
        HOSTILE,
        40,
        HOSTILE,
        extra={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
        exc_text=HOSTILE,
        stack_info=HOSTILE,
    )
    shown(browser, 2)
    browser.press("G", "Enter")
    browser.wait("document.querySelector('.detail') !== null")
    browser.press("/")
    browser.type("<img")
    shown(browser, 1)
    browser.wait("document.querySelector('.detail mark') !== null")
    assert browser.run("document.querySelectorAll('#log img, #log script, #log b b').length") == 0
    assert browser.run("window.hurt === undefined")
    assert HOSTILE in browser.run("document.querySelector('.detail pre.exception').textContent")
    # In one line, what would turn the text around, or is no character at all, is a dot.
    line = browser.run("document.querySelector('#space .text').textContent")
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_filters_act_at_once_and_on_what_the_server_keeps(show):
    old = [
        seen(
            n,
            f"request {n} served",
            40 if n % 100 == 0 else 20,
            "shop.http" if n % 2 else "shop.db",
            extra={"user": {"id": n % 7}},
        )
        for n in range(1, 6_001)
    ]
    browser, page = show(old)
    browser.wait("page.dense.length >= 2000 && !page.fetching")
    assert browser.run("page.dense.length") < 6_000  # the others are on the server
    browser.press("4")
    browser.press("g")
    shown(browser, 60)
    assert browser.run("page.shown[0].m") == "request 100 served"
    browser.press("x")
    browser.run("setFilter({ grep: '/request 10?0 /', logger: 'shop !shop.http', field: 'user.id=2' })")
    browser.press("g")
    shown(browser, 1)
    assert browser.run("page.shown[0].m") == "request 100 served"
    assert (
        browser.run("location.hash")
        == "#logger=shop+%21shop.http&grep=%2Frequest+10%3F0+%2F&field=user.id%3D2"
    )
    page.log("request 100 once more", logger="shop.db", extra={"user": {"id": 2}})
    page.log("request 100 elsewhere", logger="other", extra={"user": {"id": 2}})
    shown(browser, 2)
    browser.press("/")
    browser.type("(unfinished")
    browser.run("setFilter({ grep: '/(unfinished/' })")
    assert browser.run("document.getElementById('grep').classList.contains('wrong')")
    browser.press("Escape", "x")
    assert browser.run("isFiltered()") is False
    assert browser.run("document.activeElement.id") == "list"


def test_page_and_server_filter_alike(show):
    """What is searched for further back must be what would be shown here."""
    extras: list[Any] = [
        None,
        {"a": 1},
        {"a": "1"},
        {"a": 1.5},
        {"a": True},
        {"a": None},
        {"a": {"b": {"c": "x y"}}},
        {"a.b": "x"},
    ]
    old = [
        seen(n, message, level, logger, pid=pid, extra=extra, exc_text=TRACEBACK if n % 3 == 0 else None)
        for n, (message, level, logger, pid, extra) in enumerate(
            [
                (message, level, logger, 1 + len(message) % 2, extra)
                for message in ("Order paid", "order (paid) [x]")
                for level, logger in ((10, "a"), (20, "a.b"), (30, "a.bc"), (40, "a.b.c"), (50, "root"))
                for extra in extras
            ],
            1,
        )
    ]
    browser, _ = show(old)
    shown(browser, len(old))
    for asked in (
        {"level": 30}, {"logger": "a.b"}, {"logger": "!a.b"}, {"logger": "a, !a.b"}, {"grep": "order"}, {"grep": "Order"},
        {"grep": "(paid) ["}, {"grep": "/^order|money$/i"}, {"field": "a=1"}, {"field": "a=true"}, {"field": "a=True"},
        {"field": "a="}, {"field": "a=None"}, {"field": 'a.b.c="x y"'}, {"field": "a.b=x"}, {"field": "a=1.5"},
        {"field": "pid=2"}, {"field": "process=1 level=ERROR"}, {"field": "host=web1 levelno=20"}, {"field": "filename=cart.py"},
        {"field": "module=cart function=checkout line=42"}, {"field": "missing=1"}, {"field": "producer=p1"},
    ):  # fmt: skip
        here = browser.run(
            f"(setFilter({json.dumps({'level': 0, 'logger': '', 'grep': '', 'field': '', **asked})}), page.dense.filter(test).map(row => row.n))"
        )
        there = browser.run(
            "(async () => { const all = page.dense; page.dense = [{ n: 1e6, note: 'x' }]; page.more = true; page.sparse = [];"
            " while (page.fetching) await new Promise(done => setTimeout(done, 5)); page.more = true; await fetchOlder();"
            " const found = page.sparse.map(row => row.n); page.dense = all; return found })()"
        )
        assert here == there, asked


def test_keys_move_expand_pause_and_show_help(show):
    browser, page = show(
        [
            seen(n, f"record {n}", 40 if n in (10, 20) else 20, exc_text=TRACEBACK if n == 20 else None)
            for n in range(1, 31)
        ]
    )
    shown(browser, 30)
    browser.press("E")
    assert browser.run("page.selected.m") == "record 20"
    browser.press("Enter")
    browser.wait("page.expanded.get(page.selected) > 100")
    assert "CardRefused" in browser.run("document.querySelector('.detail pre').textContent")
    # What is below makes room for it.
    browser.wait("document.getElementById('space').offsetHeight === 30 * HEIGHT + page.heights[0][1]")
    browser.press("j", "j", "k")
    assert browser.run("page.selected.m") == "record 21"
    browser.press("E", "E")
    assert browser.run("page.selected.m") == "record 10"
    browser.press("c", "g")
    browser.wait("page.selected.m === 'record 1'")
    assert browser.run("page.expanded.size") == 0
    browser.press(" ")
    page.log("while paused")
    browser.wait("page.pending.length === 1")
    assert browser.run("page.shown.length") == 30
    assert browser.run("document.getElementById('jump').textContent") == "1 new  ·  go on"
    browser.press(" ")
    shown(browser, 31)
    browser.wait("isAtEnd()")
    browser.press("?")
    assert browser.run("document.getElementById('help').open")
    browser.press("Escape")
    assert not browser.run("document.getElementById('help').open")
    before = browser.run("document.documentElement.dataset.theme")
    browser.press("t")
    assert {before, browser.run("document.documentElement.dataset.theme")} == {"dark", "light"}


@pytest.mark.usefixtures("untraced")
def test_a_hundred_thousand_records_stay_quick(show):
    began = time.time() - 600
    old = [
        seen(
            n, f"GET /cart/{n} 200", 40 if n % 100 == 0 else 20, f"shop.m{n % 20}", created=began + n * 0.006
        )
        for n in range(1, 100_001)
    ]
    browser, _ = show(old)
    browser.wait("page.dense.length > 0")
    browser.press("g")
    browser.wait("page.dense.length === 100000 && !page.fetching", "all are here")
    assert browser.run("painted.size") < 120  # only what is in sight is there
    took = browser.run(
        "(() => { const began = performance.now(); setFilter({ grep: 'cart/777' }); paint(); return performance.now() - began })()"
    )
    assert browser.run("page.shown.length") == 111
    assert took < 1_000  # 30 ms where nobody else is at work
    browser.press("x")
    paints = browser.run(
        "(() => { const took = []; for (let n = 1; n <= 20; n++) { $('list').scrollTop = n * 100000; const began = performance.now();"
        " paint(); void document.body.offsetHeight; took.push(performance.now() - began) } return took.sort((a, b) => a - b) })()"
    )
    assert paints[10] < 200  # 9 ms where nobody else is at work
    assert len(texts(browser)) > 30


def test_figures_are_drawn_and_children_have_their_states(show):
    browser, page = show([seen(1, "one", created=time.time() - 20)])
    page.log("two", 30)
    browser.wait("document.querySelectorAll('#writers .thing').length === 2")
    writers = browser.run("document.getElementById('writers').textContent")
    assert "set aside: no terminal" in writers
    assert "1,000 behind, oldest 99.5 s" in writers
    assert browser.run("document.querySelector('#writers .bad b').firstChild.textContent") == "console"
    assert "7 spool full" in browser.run("document.getElementById('supervisor').textContent")
    browser.wait("document.getElementById('producers').textContent.includes('MainProcess[4711]')")
    painted = "(id => [...$(id).getContext('2d').getImageData(0, 0, $(id).width, $(id).height).data].some(value => value))"
    assert browser.run(f"{painted}('throughput') && {painted}('delay')")
    browser.run("document.querySelector('#producers .thing').click()")
    assert browser.run("filter.field") == "pid=4711"


class Archived:
    """Log files with two records of last night."""

    writers = ("app", "errors")

    def search(self, name: str, wanted: Filter, number: int, before: float) -> Found:
        assert name == "app"
        assert before < time.time()
        night = [
            seen(1, "order lost", 40, created=before - 100_000),
            seen(2, "order kept", 20, created=before - 99_000),
        ]
        found = [each for each in night if wanted.matches(each)]
        return Found([row(number - len(found) + index, each) for index, each in enumerate(found)], False, [])


def test_the_log_files_are_searched_for_what_is_not_kept(show):
    browser, _ = show([seen(1, "order of today", 40)], archives=Archived())
    shown(browser, 1)
    browser.press("4")
    browser.wait("document.querySelectorAll('#older button').length === 2")
    browser.run("document.querySelector('#older button').click()")
    shown(browser, 2)
    assert browser.run("page.shown.map(row => row.m)") == ["order lost", "order of today"]
    assert browser.run("document.getElementById('older').textContent") == "the files of app have no more"
    # They are not of today, and say so.
    browser.wait(
        "[...document.querySelectorAll('#space .time')].map(one => one.textContent.length).sort().join() === '12,18'"
    )
    browser.press("x")
    shown(browser, 1)
    browser.wait("document.querySelectorAll('#older button').length === 2")
    # By keys alone.
    browser.press("o", "Enter")
    shown(browser, 3)


def test_what_is_typed_quickly_into_several_fields_counts(show):
    browser, _ = show([seen(n, f"record {n}", 20, f"shop.m{n % 2}", extra={"n": n % 3}) for n in range(12)])
    shown(browser, 12)
    browser.run(
        "for (const [id, text] of [['logger', 'shop.m1'], ['field', 'n=2']])"
        " { $(id).value = text; $(id).dispatchEvent(new Event('input')); }"
    )
    browser.wait("filter.field === 'n=2' && filter.logger === 'shop.m1' && $('logger').value === 'shop.m1'")
    shown(browser, 2)


def test_a_banner_that_takes_room_leaves_the_list_at_its_end(show):
    browser, page = show([seen(number, f"record {number}") for number in range(1, 200)])
    shown(browser, 199)
    browser.wait("isAtEnd()")
    # In this order a browser tells of them: it has scrolled, and the list has become smaller.
    browser.run("say('two\\nlines ' + 'of text '.repeat(80)); onScroll()")
    assert browser.run("page.follow")
    browser.wait("isAtEnd()")
    page.log("comes after it")
    shown(browser, 200)
    browser.wait("isAtEnd()")
    browser.run("$('list').scrollTop -= 300")
    browser.wait("!page.follow")


def test_who_goes_to_the_newest_while_older_ones_are_fetched_stays_there(show):
    browser, _ = show([seen(number, f"record {number}") for number in range(1, 30_001)])
    browser.wait("page.dense.length > 0 && !page.fetching && page.more")
    browser.run("(async () => { const walked = toOldest(); toNewest(); await walked; return true })()")
    browser.wait("!page.fetching")
    assert browser.run("page.follow && isAtEnd() && page.selected !== page.shown[0]")


def test_it_says_so_when_nobody_answers_and_goes_on_when_somebody_does(show):
    state = busy_state()
    state |= {
        "supervisor": None,
        "supervisor_error": "no supervisor runs here",
        "stream": None,
        "stream_error": "redis is away",
    }
    browser, page = show([], state=lambda: state)
    browser.wait("document.getElementById('supervisor').textContent === 'no supervisor runs here'")
    assert browser.run("document.getElementById('writers').textContent") == "redis is away"
    assert "Nothing has been logged yet" in browser.run("document.getElementById('empty').textContent")
    page.report("the server is away, waiting for it")
    browser.wait("document.getElementById('banner').textContent === 'the server is away, waiting for it'")
    browser.resize(420, 800)
    page.log("seen on a phone")
    browser.wait("document.querySelector('#space .level')?.textContent === 'I'")
    assert browser.run("document.documentElement.scrollWidth") <= 420


def test_a_link_with_the_token_lets_a_browser_in(browser, serve):
    page = serve([seen(1, "for those who may")], token="s3cret")
    browser.open(page.address)
    assert "This page asks for a token" in browser.run("document.body.textContent")
    browser.open(page.address + "?token=wrong")
    assert "This page asks for a token" in browser.run("document.body.textContent")
    browser.open(page.address + "?token=s3cret")
    shown(browser, 1)
    assert browser.run("location.search") == ""
    assert "s3cret" not in browser.run("document.cookie")
    browser.open("about:blank")
