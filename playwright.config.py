"""How the tests and the demo's check run a browser. Constants only: read it with `runpy.run_path`.

It cannot be imported: `import playwright.config` would look inside the Playwright package.
"""

# The first one that exists is used. The environment variable CHROMIUM wins over the list.
EXECUTABLES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)

# What apt calls it, for a machine where we are root.
APT_PACKAGE = "chromium"

LAUNCH_ARGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Otherwise a new tab gets the process that was started in reserve before it: nobody could tell which one is whose.
    "--disable-features=SpareRendererForSitePerProcess",
)

# Chromium's sandbox refuses to start for root, which is who we are in a container.
LAUNCH_ARGS_AS_ROOT = ("--no-sandbox",)

# The site is always served below a path, as GitHub Pages does it.
BASE_PATH = "/my-repo/"

LAUNCH_TIMEOUT_MS = 60_000
ACTION_TIMEOUT_MS = 30_000

# From opening the page to a finished import, on a slow machine with a cold cache.
RUN_TIMEOUT_MS = 180_000
