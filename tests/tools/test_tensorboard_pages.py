"""What a person sees: TensorBoard's pages of a run of the demo's cohort, in a real browser."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

ROWS = 24

# A browser without a screen draws the projector's points in software.
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install 'tfmmcl[test]'")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=installed, args=ARGUMENTS)
        except api.Error as error:
            pytest.skip(f"no Chromium starts; try `playwright install chromium` ({error.message.splitlines()[0]})")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(repository, tmp_path_factory, small_overrides):
    """Where TensorBoard shows a short run on the demo's cohort."""
    folder = tmp_path_factory.mktemp("pages")
    demo = [sys.executable, str(repository / "tools" / "pretrain.py"), f"data.path={folder / 'data'}"]
    few = [f"watching.trajectories={ROWS}", "training.steps_per_epoch=3", "augmentation.segment.seconds=4"]
    command = [*demo, "--out", str(folder / "runs" / "demo"), "--profile", "2,4", *small_overrides, *few]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    board = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--port", "0"]
    said = folder / "said"
    with open(said, "w") as file, subprocess.Popen(board, stderr=file, stdout=file) as process:
        try:
            while not (found := re.search(r"http://localhost:\d+/", said.read_text())):
                assert process.poll() is None, said.read_text()
            yield found[0]
        finally:
            process.kill()


@pytest.fixture
def page(browser, address):
    """Opens one of TensorBoard's pages; an error that the page meets fails the test."""
    opened, errors = browser.new_page(viewport={"width": 1500, "height": 1500}), []
    opened.set_default_timeout(60_000)
    opened.on("pageerror", lambda error: errors.append(error))

    def open_page(name):
        opened.goto(f"{address}#{name}")
        return opened

    yield open_page
    opened.close()
    assert not errors


def plugins(address):
    with urllib.request.urlopen(f"{address}data/plugins_listing", timeout=60) as answer:
        return json.load(answer)


def painted(element):
    """Returns how many colours an element shows."""
    pixels = np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


@pytest.mark.slow
def test_scalars_are_drawn_in_groups_beside_chance(page):
    shown = page("scalars")
    for group in ("accuracy", "loss", "optimizer", "probe", "representation", "speed"):
        shown.get_by_role("button", name=re.compile(rf"^{group}\b")).or_(
            shown.get_by_text(group, exact=True)
        ).first.wait_for()
    shown.get_by_text("demo/tensorboard/chance").first.wait_for()
    chart = shown.locator("tf-scalar-card").filter(has_text="loss/by epoch").first
    chart.locator("canvas, svg").first.wait_for()
    chart.scroll_into_view_if_needed()
    shown.wait_for_timeout(2000)
    assert painted(chart) > 20


@pytest.mark.slow
def test_pictures_are_shown(page):
    shown = page("images")
    for name in ("a trajectory and its two views", "similarity of views"):
        picture = shown.locator("tf-image-loader").filter(has_text=name).locator("img").first
        picture.wait_for()
        shown.wait_for_function("image => image.complete && image.naturalWidth > 300", arg=picture.element_handle())


@pytest.mark.slow
def test_the_projector_shows_every_trajectory_and_its_labels(page, address):
    # TensorBoard looks for its files only once it has been asked for its plugins.
    while not plugins(address)["projector"]["enabled"]:
        time.sleep(0.2)
    frame = page("projector").frame_locator("iframe").frame_locator("iframe")
    frame.get_by_text(re.compile(rf"Points: {2 * ROWS}")).first.wait_for()
    frame.get_by_text(re.compile(r"Dimension: 16")).first.wait_for()
    for column in ("split", "elevated_mpap", "mortality_24h"):
        frame.get_by_text(column).first.wait_for(state="attached")
    points = frame.locator("canvas").first
    points.wait_for()
    assert painted(points) > 20


@pytest.mark.slow
def test_hparams_has_the_settings_beside_figures(page):
    shown = page("hparams")
    shown.get_by_text("optimizer.learning_rate").first.wait_for()
    for figure in ("loss/by epoch", "probe/linear, AUROC", "representation/effective rank"):
        shown.get_by_text(figure).first.wait_for()
    shown.get_by_text("bernoulli").first.wait_for()
