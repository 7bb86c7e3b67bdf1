"""The page of small figures."""

from PIL import Image

from gemstones.figures.gallery import WIDTH, Shown, write_gallery


def test_figures_are_small_and_stand_under_their_stage(tmp_path):
    picture = tmp_path / "large.png"
    Image.new("RGB", (1400, 700), "white").save(picture)
    figures = [
        Shown("held_out", "3 Laws", "Errors of **two** tests.\n", picture),
        Shown("all_shapes", "1 Suite", "Shapes.", picture),
    ]
    write_gallery(figures, tmp_path / "docs/gallery.md")
    page = (tmp_path / "docs/gallery.md").read_text()
    places = [
        page.index(text) for text in ("## Suite", "### all shapes", "Shapes.", "## Laws", "### held out", "**two**")
    ]
    assert places == sorted(places)
    assert "![held out](images/gallery/held_out.png)" in page
    with Image.open(tmp_path / "docs/images/gallery/held_out.png") as small:
        assert small.size == (WIDTH, WIDTH // 2)
