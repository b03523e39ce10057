"""Headless Chromium, which looks at pages as a reader would: what is wrong with one, line by line."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

PHONE, DESK = 390, 1280
THEMES = ("light", "dark")
CONTRAST = 4.5  # WCAG 2.2, 1.4.3, level AA
SMALLEST_TEXT = 7.0  # pixels of a line of text in a plot on a telephone

#: Of every text that is seen: contrast with what lies behind it, height, and the text.
_TEXTS = """
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (color) => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
  return {rgb: [r / 255, g / 255, b / 255], alpha: a};
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor);
    if (color.alpha === 1) return color.rgb;
  }
  return [1, 1, 1];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  if (!text || element.closest("script, style, [hidden]")) continue;
  const style = getComputedStyle(element);
  const color = parse(element.closest("svg") ? style.fill : style.color);
  const [a, b] = [luminance(color.rgb), luminance(behind(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), element.getBoundingClientRect().height, text.slice(0, 40)]);
}
return found;
"""
_PLOTS = """
return [...document.querySelectorAll("svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const drawn = svg.querySelectorAll("path, use").length;
  return [svg.getAttribute("aria-label") || "", box.width, box.height, drawn];
});
"""
#: Texts of plots that lie over each other or leave their plot; a line's box is higher than its letters.
TEXTS_OF_PLOTS = """
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  const box = svg.getBoundingClientRect();
  texts.forEach(([a, p]) => {
    if (p.left < box.left - 1 || p.right > box.right + 1) found.push(`'${a}' leaves its plot`);
  });
  texts.forEach(([a, p], place) => texts.slice(0, place).forEach(([b, q]) => {
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > 0 && high > 0.25 * Math.min(p.height, q.height)) found.push(`'${b}' lies over '${a}'`);
  }));
}
return found;
"""
_IDS = """
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
const links = [...document.querySelectorAll("a[href^='#'], use")].map((link) => link.getAttribute("href").slice(1));
const twice = ids.filter((id, place) => ids.indexOf(id) !== place);
return [twice, links.filter((link) => !ids.includes(link))];
"""
_BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


def missing() -> str | None:
    """The reason to skip, if any."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed: apt-get install chromium chromium-driver" if absent else None


class Browser:
    """One Chromium. Close it."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def close(self) -> None:
        self.driver.quit()

    def open(self, page: Path, width: int, theme: str) -> None:
        """Shows a file as a screen of so many pixels that prefers light or dark."""
        device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # of the page before
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str) -> Any:
        """What JavaScript returns in the page."""
        return self.driver.execute_script(script)

    def requests(self) -> list[str]:
        """Addresses that were asked for since `open`, the page's own and data in itself left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [entry["params"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
        return [
            entry["request"]["url"]
            for entry in sent
            if entry["request"]["url"] != entry["documentURL"] and not entry["request"]["url"].startswith("data:")
        ]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG, for people."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))

    def faults(self, page: Path) -> list[str]:
        """What is wrong with a page on a telephone and on a desk, in light and in dark; nothing, it should be."""
        found: list[str] = []
        for width in (PHONE, DESK):
            backgrounds = set()
            for theme in THEMES:
                self.open(page, width, theme)
                found += [f"{width} {theme}: {fault}" for fault in self._faults_here(width)]
                backgrounds.add(self.run(_BACKGROUND))
            if len(backgrounds) < len(THEMES):
                found.append(f"{width}: light and dark have one background, {backgrounds}")
        return found

    def _faults_here(self, width: int) -> list[str]:
        found = [f"console: {entry['message']}" for entry in self.driver.get_log("browser")]
        found += [f"loads {address}" for address in self.requests()]
        scrolled = self.run("return document.documentElement.scrollWidth")
        if scrolled > width:
            found.append(f"the page is {scrolled} pixels wide")
        for contrast, height, text in self.run(_TEXTS):
            if contrast < CONTRAST:
                found.append(f"contrast {contrast:.1f} of {text!r}")
            if 0 < height < SMALLEST_TEXT:
                found.append(f"{text!r} is {height:.1f} pixels high")
        for label, plot_width, plot_height, drawn in self.run(_PLOTS):
            if min(plot_width, plot_height) < 50 or not drawn:
                found.append(f"plot {label!r} is {plot_width} by {plot_height} pixels with {drawn} paths")
            if not label:
                found.append("a plot has no label")
        found += self.run(TEXTS_OF_PLOTS)
        twice, dangling = self.run(_IDS)
        return found + [f"id {name} twice" for name in twice] + [f"nothing has the id {name}" for name in dangling]
