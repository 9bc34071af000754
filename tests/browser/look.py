"""Opens pages in a headless Chromium and says what is wrong with them, as JSON on stdout.

    look.py [--pictures FOLDER] [--only WIDTH,SCHEME] ADDRESS…

Each page is opened at 360, 800 and 1400 pixels, light and dark, and as it is printed on A4. Wrong are: a page wider than its
window, an element that sticks out, an error in the console, a request to elsewhere, what axe finds (contrast, labels, headings,
tables), and a figure that is not the one in the JSON that the page carries. Chromium is spoken to over a pipe, in its DevTools
protocol; nothing but Python's own library is used, and axe from the package axe-core-python.
"""

import argparse
import base64
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SCREENS = [(width, scheme) for width in (360, 800, 1400) for scheme in ("light", "dark")]
# A4 without the margins, at 96 pixels an inch.
PAPER = (703, "print")

PROBE = """
(() => {
  const wide = document.documentElement.scrollWidth > window.innerWidth
    ? [`the page is ${document.documentElement.scrollWidth} px wide in a window of ${window.innerWidth}`] : [];
  const clipped = (e) => { for (; e; e = e.parentElement) {
    const s = getComputedStyle(e);
    if (s.clipPath !== 'none' || s.display === 'none') return true;
  } return false; };
  const out = [...document.body.querySelectorAll('*')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > window.innerWidth + 1 || box.left < -1) && !clipped(e);
  }).slice(0, 5).map((e) => `<${e.localName} class="${e.getAttribute('class') || ''}"> sticks out: ${(e.textContent || '').slice(0, 60)}`);
  const text = document.getElementById('rekey-report')?.textContent;
  const at = (value, path) => path.split('/').slice(1).reduce((v, k) => v?.[k], value);
  const figures = [...document.querySelectorAll('data[data-json]')];
  const json = text ? JSON.parse(text) : null;
  const wrong = !json ? [] : figures.filter((f) => {
    const value = at(json, f.dataset.json);
    return String(value) !== f.value || f.textContent.replace(/\\s/g, '') !== String(value);
  }).map((f) => `${f.dataset.json} is ${at(json, f.dataset.json)}, shown as ${f.textContent}`);
  return {
    wide, out, wrong, figures: figures.length, json: text ?? null,
    sha256: document.getElementById('sha256')?.textContent ?? null,
    title: document.title, lang: document.documentElement.lang,
    headings: [...document.querySelectorAll('h1,h2,h3')].map((h) => h.localName + ' ' + h.textContent),
    text: document.body.innerText,
  };
})()
"""


class Browser:
    """A Chromium of our own, with one tab."""

    def __init__(self, folder):
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is None:
            sys.exit("chromium is missing: apt-get install chromium")
        (there, ours), (us, theirs) = os.pipe(), os.pipe()

        def hand_over():
            # Chromium reads its commands from 3 and answers on 4.
            high = [os.dup2(fd, fd + 50) for fd in (there, theirs)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--remote-debugging-pipe", "--no-first-run", "--disable-extensions", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--font-render-hinting=none",
             f"--user-data-dir={folder}", "about:blank"],
            close_fds=False, preexec_fn=hand_over, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder})
        os.close(there)
        os.close(theirs)
        self.out, self.answers = os.fdopen(ours, "wb", 0), os.fdopen(us, "rb", 0)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.rest:
            part = os.read(self.answers.fileno(), 1 << 20)
            if not part:
                sys.exit("chromium has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def wait_for(self, method):
        while not any(event["method"] == method for event in self.events):
            answer = self.receive()
            if "method" in answer:
                self.events.append(answer)

    def evaluate(self, expression):
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            sys.exit(f"the probe failed: {json.dumps(done['exceptionDetails'])[:2000]}")
        return done["result"].get("value")

    def close(self):
        self.call("Browser.close")
        self.process.wait(30)


def axe():
    found = importlib.util.find_spec("axe_core_python")
    if found is None:
        sys.exit("axe-core-python is missing: tests/requirements.txt names it")
    return pathlib.Path(found.submodule_search_locations[0], "axe.min.js").read_text()


def look(browser, address, width, scheme, rules, picture):
    """What is wrong with one page in one window, and what it shows."""
    printed = scheme == "print"
    browser.events.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", media="print" if printed else "screen",
                 features=[{"name": "prefers-color-scheme", "value": "dark" if scheme == "dark" else "light"}])
    browser.call("Page.navigate", url=address)
    browser.wait_for("Page.loadEventFired")
    seen = browser.evaluate(PROBE)
    wrong = seen.pop("wide") + seen.pop("out") + seen.pop("wrong")
    if seen["json"] is not None:
        # What stands between the lines of the element's tags, as sed takes it out.
        text = seen.pop("json").removeprefix("\n")
        if hashlib.sha256(text.encode()).hexdigest() != seen["sha256"]:
            wrong.append("the SHA-256 is not that of the JSON")
        seen["report"] = json.loads(text)
    else:
        seen.pop("json")
    if rules:
        browser.evaluate(rules + ";0")
        found = browser.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations.map((v) => "
                                 "[v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + ' ' + (n.failureSummary || ''))]))")
        wrong += [f"axe {name}: {text}: {nodes}" for name, text, nodes in found]
    if picture:
        if printed:
            pdf = browser.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
            pathlib.Path(f"{picture}.pdf").write_bytes(base64.b64decode(pdf["data"]))
        shot = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        pathlib.Path(f"{picture}.png").write_bytes(base64.b64decode(shot["data"]))
    origin = "/".join(address.split("/")[:3])
    for event in browser.events:
        kind, about = event["method"], event["params"]
        if kind == "Network.requestWillBeSent":
            url = about["request"]["url"]
            own = url.split("#")[0] == address if origin == "file://" else url.startswith(origin + "/")
            if not own and not url.startswith("data:"):
                wrong.append(f"a request to {url}")
        elif kind == "Runtime.exceptionThrown":
            wrong.append(f"an exception: {json.dumps(about)[:300]}")
        elif kind == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            wrong.append(f"in the console: {json.dumps(about)[:300]}")
        elif kind == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            wrong.append(f"in the log: {about['entry']['text'][:300]} {about['entry'].get('url', '')}")
    return {"address": address, "width": width, "scheme": scheme, "wrong": wrong, **seen}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pictures", type=pathlib.Path)
    arguments.add_argument("--only", help="one window alone: WIDTH,SCHEME")
    arguments.add_argument("--without-axe", action="store_true", help="for pages of many thousand rows")
    arguments.add_argument("addresses", nargs="+")
    asked = arguments.parse_args()
    windows = [*SCREENS, PAPER]
    if asked.only:
        width, scheme = asked.only.split(",")
        windows = [(int(width), scheme)]
    rules = None if asked.without_axe else axe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        seen = []
        for number, address in enumerate(asked.addresses):
            for width, scheme in windows:
                name = asked.pictures / f"{number}-{width}-{scheme}" if asked.pictures else None
                seen.append(look(browser, address, width, scheme, rules, name))
        browser.close()
    json.dump(seen, sys.stdout)


main()
