#!/usr/bin/env python3
"""Opens the page of the fixture in a real browser and uses it: page_test.py RENDER_PAGE [--shots FOLDER]

Without a Chromium (or NORMA_CHROMIUM) it says so and exits with 77, which CTest counts as skipped.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from devtools import Browser, find_chromium

FIXTURE = pathlib.Path(__file__).resolve().parent.parent / "golden" / "reports" / "run.jsonl"
ROWS = "document.querySelectorAll('#body tr[data-place]').length"
SOON = "new Promise(done => setTimeout(done, 50))"


class Page:
    def __init__(self, browser):
        self.browser = browser
        self.failures = 0

    def check(self, sentence, expression, want):
        self.browser.evaluate(SOON)
        got = self.browser.evaluate(expression)
        if got != want:
            self.failures += 1
        print("ok  " if got == want else "FAIL", sentence, "" if got == want else f"\n       got   {got!r}\n       want  {want!r}")

    def column(self, title):
        return ("(() => { const i = [...document.querySelectorAll('#head tr:last-child th')].findIndex(t => t.textContent.trim() === "
                f"{title!r}); return [...document.querySelectorAll('#body tr[data-place]')].map(r => r.cells[i].textContent); }})()")

    def set(self, element, value, event="input"):
        self.browser.evaluate(f"(() => {{ const e = document.getElementById({element!r}); e.value = {value}; "
                              f"e.dispatchEvent(new Event({event!r}, {{bubbles: true}})); }})()")

    def click(self, selector):
        self.browser.evaluate(f"document.querySelector({selector!r}).click()")


def use(page, records, rows):
    browser = page.browser
    page.check("every record has a row", ROWS, rows)
    page.check("the count of rows is told", "document.getElementById('found').textContent", f"{rows} rows")
    page.check("worst first", page.column("verdict") + "[0]", "crashed")
    page.check("every verdict is in the summary",
               "[...document.querySelectorAll('#summary > span')].map(s => s.textContent).join('|').includes('0 pass')", False)

    header = "[...document.querySelectorAll('#head .sort')].find(b => b.textContent.trim() === 'max')"
    browser.evaluate(header + ".click()")
    page.check("a click sorts, largest first", header + ".closest('th').getAttribute('aria-sort')", "descending")
    page.check("infinity is above every number and a missing figure is last",
               f"(c => [c[0], c[c.length - 1]])({page.column('max')})", ["∞", ""])
    finite = f"{page.column('max')}.filter(t => /^\\d/.test(t)).map(Number)"
    page.check("the column is in order", f"(v => v.every((x, i) => i === 0 || v[i - 1] >= x))({finite})", True)
    browser.evaluate(header + ".click()")
    page.check("a second click turns it round", f"(v => v.every((x, i) => i === 0 || v[i - 1] <= x))({finite})", True)

    text = sum("avx512" in r["impl"] or "avx512" in r["case"] for r in records)
    page.set("filter-text", "'avx512'")
    page.check("the text filter finds implementations", ROWS, text)
    page.set("filter-text", "'no such thing'")
    page.check("nothing found is said", "document.getElementById('body').textContent", "No record matches the filter.")
    page.set("filter-text", "''")
    fails = "[...document.getElementById('filter-verdict').options].find(o => o.text === 'fail').value"
    page.set("filter-verdict", fails)
    page.check("the verdict filter keeps what it says", f"[...new Set({page.column('verdict')})]", ["fail"])
    page.click("#filters [type=reset]")
    page.check("Clear shows all again", ROWS, rows)

    drawn = ("[...document.querySelectorAll('#detail canvas')].map(c => { const blank = document.createElement('canvas'); "
             "blank.width = c.width; blank.height = c.height; return c.toDataURL() !== blank.toDataURL(); })")
    browser.evaluate("[...document.querySelectorAll('#body tr[data-place]')].find(r => r.textContent.includes('cuda.rmsnorm')).click()")
    page.check("a chosen row draws both charts", drawn, [True, True])
    page.check("it is in the address", "/^#\\d+(\\.\\w+)?$/.test(location.hash)", True)
    page.click("#log-counts")
    page.check("logarithmic counts draw too", drawn, [True, True])
    before = browser.evaluate("location.hash")
    browser.evaluate("document.getElementById('table').focus()")
    browser.press("Home")
    page.check("Home goes to the first row", "document.querySelector('[aria-selected=true]').dataset.place", "0")
    browser.press("ArrowDown")
    page.check("the arrow goes down a row", "document.querySelector('[aria-selected=true]').dataset.place", "1")
    page.check("and the address follows", f"location.hash !== {before!r} || document.querySelector('[aria-selected=true]').id", True)
    page.check("the table names its active row",
               "document.getElementById(document.getElementById('table').getAttribute('aria-activedescendant')).getAttribute('aria-selected')", "true")
    for record in records:
        browser.evaluate(f"location.hash = '#{record['ordinal']}'")
        page.check(f"#{record['ordinal']} opens its record", "document.querySelector('.record-line')?.textContent", record["case"])
    last = next(r for r in records if r["verdict"] == "crashed")
    browser.evaluate(f"location.hash = '#{last['ordinal']}'")
    page.check("a crash tells its reason", f"document.getElementById('detail').textContent.includes({last['reason']!r})", True)
    page.check("text of a run is text", "document.querySelector('#body b, #detail code b')", None)


def use_audits(page, audits):
    browser = page.browser
    first = audits[0]["ranking"]
    used = next(i for i, r in enumerate(first) if r["declared"])
    alike = sum(not r["gap"] and r["format"] == first[used]["format"] for r in first)
    visible = "[...document.querySelectorAll('#site tbody tr:not(.unfold)')].filter(r => !r.hidden && r.cells.length > 1)"
    page.check("the overview has a line a site, with the path in use and the best",
               "[...document.querySelectorAll('.overview tbody tr')].map(r => [0, 1, 7].map(i => r.cells[i].querySelector('a, code').textContent))",
               [[a["input"], next(r["path"] for r in a["ranking"] if r["declared"]), a["ranking"][0]["path"]] for a in audits])
    page.check("one site is shown", "document.querySelectorAll('.audit').length", 1)
    page.check("twelve paths and the one in use, at its true rank, are in sight",
               visible + ".map(r => r.cells[0].textContent).join()", ",".join(map(str, [*range(1, 13), used + 1])))
    page.check("it is marked", "[...document.querySelectorAll('.used .in-use')].map(e => e.closest('td').querySelector('code').textContent)",
               [first[used]["path"]])
    page.check("a source without a commit ends without @", "/@(?!\\w)/.test(document.getElementById('site').textContent)", False)
    page.click(".unfold button")
    page.check("the rest of the same function unfolds", visible + ".length", alike)
    page.click(".others .unfold button")
    page.check("and so do the other functions and formats", visible + ".length", len(first))
    page.check("below their heading, with the reason", "[...document.querySelectorAll('.others tr')].slice(1).every(r => r.querySelector('.gap'))", True)
    browser.evaluate("document.querySelectorAll('.overview tbody tr')[1].cells[2].click()")
    page.check("a click chooses a site", "document.querySelector('#site h3 code').textContent", audits[1]["input"])
    page.check("it is in the address", "location.hash", "#site-2")
    other = next(i for i, r in enumerate(audits[1]["ranking"]) if r["declared"])
    page.check("a path in use that is another function is in sight too", "document.querySelector('.others .used').hidden + ' ' + "
               "document.querySelector('.others .used').cells[0].textContent", f"false {other + 1}")
    browser.evaluate("document.querySelector('.overview [aria-current]').focus()")
    browser.press("ArrowUp")
    page.check("the arrow goes up a site", "location.hash + ' ' + document.activeElement.textContent", "#site-1 " + audits[0]["input"])


def use_measured(page, records):
    measured = [r for r in records if r["reason"] == "no criterion"]
    page.check("records without a criterion are measured, not skipped",
               "[...document.querySelectorAll('#summary > span')].map(s => s.textContent).filter(t => /skip|measured/.test(t))",
               [f"{sum(r['verdict'] == 'skip' for r in records) - len(measured)} skip", f"{len(measured)} measured, no criterion"])
    page.browser.evaluate("[...document.querySelectorAll('#summary button')].find(b => b.textContent.includes('measured')).click()")
    page.check("the filter finds them", page.column("verdict"), ["measured"] * len(measured))
    page.check("an input from a file has a short name, and the whole one on hover", "(c => c && [c.textContent, c.title])"
               "([...document.querySelectorAll('#body td')].find(c => c.title.startsWith('file:')))",
               ["layers.0.norm.x", "file:captures/smollm2_135m.bf16.safetensors#layers.0.norm.x@sha256-612c396109d4"])
    page.click("#filters [type=reset]")


def use_paper(page):
    ink = "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
    light = page.browser.evaluate(ink)
    page.browser.scheme("dark")
    page.check("a dark screen has another ink", f"{ink} !== {light!r}", True)
    page.browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.check("paper has not, nor have its charts", ink, light)
    page.browser.evaluate("dispatchEvent(new Event('afterprint'))")
    page.check("afterwards it is dark again", f"{ink} !== {light!r}", True)
    page.browser.scheme("light")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("render_page")
    parser.add_argument("--shots", type=pathlib.Path, help="also leave screenshots here")
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        print("skipped: no Chromium found; apt-get install chromium, or set NORMA_CHROMIUM to one")
        return 77

    lines = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
    records = [line for line in lines if line["kind"] == "record"]
    audits = [line for line in lines if line["kind"] == "audit"]
    rows = sum(max(1, len(r["outputs"])) for r in records)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "page.html"
        subprocess.run([arguments.render_page, FIXTURE, file], check=True)
        browser = Browser(program)
        try:
            page = Page(browser)
            browser.open(file.as_uri())
            page.check("what the run was made with is told", "(t => ['gcc 12.2.0', 'norma run @main --out run.jsonl', '-ffp-contract=off']"
                       ".every(w => t.includes(w)))(document.getElementById('context').textContent)", True)
            use_measured(page, records)
            use_audits(page, audits)
            use(page, records, rows)
            use_paper(page)
            for scheme in ("light", "dark") if arguments.shots else ():
                browser.scheme(scheme)
                browser.evaluate(SOON)
                browser.screenshot(arguments.shots / f"page_{scheme}.png", whole=True)
            # The address with a record in it, opened afresh.
            browser.open("about:blank")
            browser.open(file.as_uri() + "#2")
            page.check("a permalink opens its record", "document.querySelector('.record-line').textContent", records[2]["case"])
            browser.open("about:blank")
            browser.open(file.as_uri() + "#site-2")
            page.check("and one of a site its site", "document.querySelector('#site h3 code').textContent", audits[1]["input"])
            requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
            outside = [url for url in requests if not url.startswith((file.as_uri(), "data:", "about:"))]
            console = [json.dumps(e["params"]) for e in browser.events
                       if e["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
        finally:
            browser.close()
    for sentence, found in (("nothing is fetched", outside), ("the console is silent", console)):
        print("FAIL" if found else "ok  ", sentence, *found)
    return 1 if page.failures or outside or console else 0


if __name__ == "__main__":
    sys.exit(main())
